-- How a room stands, which lives on by that.
--
-- KEYS: count, presence. ARGV: the time to live.
-- Returns epoch and offset of the last message, and the presence's version; or nothing where there is no count.
local c = count_at(KEYS[1])
if not c then return {} end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return {c.epoch, c.offset, redis.call('HGET', KEYS[2], 'v') or 0}
