-- What a node must know of a room that it has just subscribed to. The room gets a count where it has none.
--
-- KEYS: count, stream, presence. ARGV: what the node has seen (epoch or empty, offset, offset told, its time or 0), an
-- epoch in case, the time to live, how many fields of the presence.
-- Returns epoch, offset and time of the last message, and a list: the presence's version, where to read on or 0, and
-- fields with their values.
local c = count_at(KEYS[1])
local offset, told, at = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if not c or is_broken(c, KEYS[2], ARGV[1], offset, told, at, true) then
  c = new_count(ARGV[5])
  redis.call('DEL', KEYS[2])
end
keep_count(KEYS[1], c, ARGV[6])
redis.call('PEXPIRE', KEYS[3], ARGV[6])
return {c.epoch, c.offset, c.at, {fields_from(KEYS[3], '0', tonumber(ARGV[7]))}}
