-- Adds what a node has taken of buckets to what all have, and says of each when it is full again.
-- KEYS: the buckets. ARGV: a name of the node, then three for each bucket, in microseconds: what was taken, as the time in
-- which it is refilled; how long ago the first of it was; the furthest that a bucket can be from full.
-- A bucket is the time at which it is full again (Redis' own), and who has taken of it last.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local answers = {}
for i, key in ipairs(KEYS) do
  local cost, age, most = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local full, last
  local held = redis.call('GET', key)
  if held then
    full, last = string.match(held, '^(%d+) (%w+)$')
  end
  full = math.min(math.max(tonumber(full) or 0, now - age) + cost, now + most)
  -- It is kept for a second longer: what another took in that time counts from there.
  redis.call('SET', key, string.format('%.0f %s', full, ARGV[1]), 'PX', math.max(math.ceil((full - now) / 1000), 0) + 1000)
  -- Where no other took of it since this node last did, that node knows better itself.
  local alone = not held or last == ARGV[1]
  answers[i] = alone and 0 or math.max(full - now, 0)
end
return answers
