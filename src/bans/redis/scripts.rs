//! What Redis does at once for bans: KEYS[1] is the hash of them, KEYS[2] the count of changes.
use crate::cluster::Script;

/// Writes a ban (ARGV[2] and its row), in place of an older one, unless there are ARGV[4]. ARGV[1] names the count where
/// there is none yet. Returns its name, and the number of the change, or nothing.
pub static PUT: Script = Script::new(
    r"
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return false
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[1])
return {redis.call('HGET', KEYS[2], 'epoch'), redis.call('HINCRBY', KEYS[2], 'number', 1)}
",
);

/// Deletes a ban (ARGV[2]). Returns the name of the count, the number of the change, and the ban.
pub static LIFT: Script = Script::new(
    r"
local row = redis.call('HGET', KEYS[1], ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[1])
return {redis.call('HGET', KEYS[2], 'epoch'), redis.call('HINCRBY', KEYS[2], 'number', 1), row}
",
);

/// Writes bans (ARGV[2] and its row, …) that are not there.
pub static RESTORE: Script = Script::new(
    r"
redis.call('HSETNX', KEYS[2], 'epoch', ARGV[1])
for i = 2, #ARGV, 2 do
  redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1])
end
return redis.call('HINCRBY', KEYS[2], 'number', 1)
",
);

/// Deletes those of the bans ARGV[3], … that have ended by ARGV[2]. It is no change: they hold nobody any more.
pub static PURGE: Script = Script::new(
    r"
for i = 3, #ARGV do
  local row = redis.call('HGET', KEYS[1], ARGV[i])
  local ends = row and tonumber(string.match(row, '^%[%-?%d+,(%-?%d+),'))
  if ends and ends <= tonumber(ARGV[2]) then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 1
",
);
