-- What stands before every script over a room's count.
--
-- The count is a text: epoch, offset and time of the last message, offset and time of the oldest one in the stream, bytes
-- of all before that, bytes of all, and when the stream's time to live was set. Times are in milliseconds. Numbers stay
-- below 10^14, where Lua writes them whole.
local function count_at(key)
  local epoch, offset, at, first, first_at, before, total, touched =
    string.match(redis.call('GET', key) or '', '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$')
  return epoch and {
    epoch = epoch, offset = tonumber(offset), at = tonumber(at),
    first = tonumber(first), first_at = tonumber(first_at),
    before = tonumber(before), total = tonumber(total), touched = tonumber(touched),
  }
end

local function keep_count(key, c, ttl)
  local text = table.concat({c.epoch, c.offset, c.at, c.first, c.first_at, c.before, c.total, c.touched}, ' ')
  redis.call('SET', key, text, 'PX', ttl)
end

local function new_count(epoch)
  return {epoch = epoch, offset = 0, at = 0, first = 1, first_at = 0, before = 0, total = 0, touched = 0}
end

-- Whether somebody has seen more of this count than stands here (offset), or another message than the one at a place
-- that was told (told, with its time or 0): then it is broken. Others may have got places behind that since; whether it
-- is looked at then, in the stream, is for whoever calls to say.
local function is_broken(c, stream, epoch, offset, told, at, looks)
  if c.epoch ~= epoch then return false end
  if c.offset < offset then return true end
  if at == 0 or c.offset == told then return at > 0 and c.at ~= at end
  local entry = looks and redis.call('XRANGE', stream, told .. '-0', told .. '-0')[1]
  return entry and tonumber(entry[2][2]) ~= at
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The offset of the oldest message within the bounds, with its time and the bytes before it; one more than the last
-- where there is none. Offsets rise with time and bytes, so that it is found by halving.
local function oldest(stream, c, time, bounds)
  local function kept(offset)
    local entry = redis.call('XRANGE', stream, offset .. '-0', offset .. '-0')[1]
    local at, before = entry and tonumber(entry[2][2]), entry and tonumber(entry[2][4])
    return entry and time - at < bounds.age and c.total - before <= bounds.bytes, at, before
  end
  local low = math.max(c.first, c.offset - bounds.messages + 1)
  if low > c.offset then return c.offset + 1, time, c.total end
  local is_kept, at, before = kept(low)
  if is_kept then return low, at, before end
  local high, high_at, high_before = c.offset + 1, time, c.total
  while high - low > 1 do
    local middle = math.floor((low + high) / 2)
    is_kept, at, before = kept(middle)
    if is_kept then high, high_at, high_before = middle, at, before else low = middle end
  end
  return high, high_at, high_before
end
