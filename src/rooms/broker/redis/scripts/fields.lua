-- What stands before every script that reads a room's presence.
--
-- Returns its version, the place at which the next look begins (0: there is none), and fields with their values: from
-- this place on, about as many as are wanted. Whatever stands there all the while is found at least once.
local function fields_from(key, place, most)
  local version = redis.call('HGET', key, 'v') or 0
  if place == '0' and redis.call('HLEN', key) <= most then return version, '0', redis.call('HGETALL', key) end
  local found = redis.call('HSCAN', key, place, 'COUNT', most)
  return version, found[1], found[2]
end
