-- Reads messages after an offset.
--
-- KEYS: count, stream. ARGV: the offset, how much at most (messages, bytes; at least one message where messages > 0),
-- bounds of the history (messages, bytes, age).
-- Returns epoch, offset of the last message, offset of the oldest that is kept or 0, and offset, time and message of
-- each; or nothing where there is no count.
local c = count_at(KEYS[1])
if not c then return {} end
local bounds = {messages = tonumber(ARGV[4]), bytes = tonumber(ARGV[5]), age = tonumber(ARGV[6])}
local from, messages, bytes = tonumber(ARGV[1]) + 1, tonumber(ARGV[2]), tonumber(ARGV[3])
local first = oldest(KEYS[2], c, now(), bounds)
local reply = {c.epoch, c.offset, first <= c.offset and first or 0}
if from < first then return reply end
while messages > 0 and from <= c.offset do
  -- A few at a time: each may be large.
  local entries = redis.call('XRANGE', KEYS[2], from .. '-0', '+', 'COUNT', math.min(messages, 16))
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    from = tonumber(string.match(entry[1], '^%d+'))
    local body = entry[2][6]
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = from, entry[2][2], body
    from, messages, bytes = from + 1, messages - 1, bytes - #body
    if messages <= 0 or bytes <= 0 then return reply end
  end
end
return reply
