-- What a node must know of a room that it has just subscribed to. The room gets a count where it has none.
--
-- KEYS: count, stream, presence. ARGV: the place that the node has seen (epoch or empty, offset, time or 0), an epoch in
-- case, the time to live, how many fields of the presence.
-- Returns epoch, offset and time of the last message, and a list: the presence's version, where to read on or 0, and
-- fields with their values.
local c = count_at(KEYS[1])
local offset, at = tonumber(ARGV[2]), tonumber(ARGV[3])

-- Whether the count lacked messages that the node has seen, and others have got their places since.
local function is_another()
  if c.epoch ~= ARGV[1] or c.offset <= offset or offset == 0 or at == 0 then return false end
  local entry = redis.call('XRANGE', KEYS[2], offset .. '-0', offset .. '-0')[1]
  return entry and tonumber(entry[2][2]) ~= at
end

if not c or is_broken(c, ARGV[1], offset, at) or is_another() then
  c = new_count(ARGV[4])
  redis.call('DEL', KEYS[2])
end
keep_count(KEYS[1], c, ARGV[5])
redis.call('PEXPIRE', KEYS[3], ARGV[5])
return {c.epoch, c.offset, c.at, {fields_from(KEYS[3], '0', tonumber(ARGV[6]))}}
