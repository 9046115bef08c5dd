-- Gives a message its place, keeps it, and tells the nodes.
--
-- KEYS: count, stream, channel, and the name of the message where it is known again.
-- ARGV: what the sender's node has seen (epoch, offset, offset told, its time or 0), 1 where that is to be looked at in
-- the stream, an epoch in case, the time to live of the count, bounds of the history (messages, bytes, age), the age of names, the message.
-- Returns epoch, offset, and 1 where that is the place of an earlier message.
local bounds = {messages = tonumber(ARGV[8]), bytes = tonumber(ARGV[9]), age = tonumber(ARGV[10])}
local body = ARGV[12]
local c = count_at(KEYS[1])
local is_new = not c or is_broken(c, KEYS[2], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]),
  ARGV[5] == '1')
if is_new then c = new_count(ARGV[6]) end
c.offset = c.offset + 1
if KEYS[4] then
  local place = redis.call('SET', KEYS[4], c.epoch .. ' ' .. c.offset, 'NX', 'GET', 'PX', ARGV[11])
  if place then
    local epoch, offset = string.match(place, '^(%S+) (%d+)$')
    return {epoch, offset, 1}
  end
end
local time = now()
c.at = math.max(time, c.at)
if is_new then redis.call('DEL', KEYS[2]) end
if bounds.messages == 0 then
  c.first = c.offset + 1
else
  if c.first == c.offset then c.first_at, c.before = c.at, c.total end
  local entry = {'XADD', KEYS[2], c.offset .. '-0', 't', c.at, 'c', c.total, 'p', body}
  local failed = redis.pcall(unpack(entry))
  if type(failed) == 'table' then
    -- Such as a memory that is full: nothing was written.
    if not (string.find(failed.err, 'equal or smaller') or string.find(failed.err, '^WRONGTYPE')) then return failed end
    -- The stream is not that of this count.
    redis.call('DEL', KEYS[2])
    redis.call(unpack(entry))
    c.first, c.first_at, c.before, c.touched = c.offset, c.at, c.total, 0
  end
  c.total = c.total + #body + 256
  -- More than the bounds is kept for a while, and cut off in one go; readers do not see it.
  if c.offset - c.first >= bounds.messages * 1.125 + 8 or c.total - c.before > bounds.bytes * 1.125
    or time - c.first_at > bounds.age * 1.125 then
    c.first, c.first_at, c.before = oldest(KEYS[2], c, time, bounds)
    redis.call('XTRIM', KEYS[2], 'MINID', c.first .. '-0')
  end
  if time - c.touched > bounds.age / 8 then
    redis.call('PEXPIRE', KEYS[2], math.floor(bounds.age * 1.25))
    c.touched = time
  end
end
keep_count(KEYS[1], c, ARGV[7])
redis.call('SPUBLISH', KEYS[3], 'm' .. c.epoch .. ' ' .. c.offset .. ' ' .. c.at .. ' ' .. body)
return {c.epoch, c.offset, 0}
