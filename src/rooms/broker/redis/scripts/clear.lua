-- Takes out whatever a node still holds in a room that it has left, and tells the others.
--
-- KEYS: presence, channel. ARGV: the node.
local prefix, told = ARGV[1] .. ' ', {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, #prefix) == prefix then
    redis.call('HDEL', KEYS[1], field)
    told[#told + 1] = #field .. ' 0 ' .. field
  end
end
if #told > 0 then
  local version = redis.call('HINCRBY', KEYS[1], 'v', 1)
  redis.call('SPUBLISH', KEYS[2], 'p' .. version .. ' ' .. table.concat(told))
end
return #told
