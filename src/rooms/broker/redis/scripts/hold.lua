-- Changes what a node holds in a room, and tells the others.
--
-- KEYS: presence, channel. ARGV: the time to live, then fields, each with its value, which is empty where the field is
-- to go.
-- Returns the presence's version.
local told = {}
for i = 2, #ARGV, 2 do
  local field, value = ARGV[i], ARGV[i + 1]
  if value == '' then
    redis.call('HDEL', KEYS[1], field)
  else
    redis.call('HSET', KEYS[1], field, value)
  end
  told[#told + 1] = #field .. ' ' .. #value .. ' ' .. field .. value
end
local version = redis.call('HINCRBY', KEYS[1], 'v', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('SPUBLISH', KEYS[2], 'p' .. version .. ' ' .. table.concat(told))
return version
