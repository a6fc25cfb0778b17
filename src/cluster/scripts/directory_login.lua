-- Gives a name to a client unless another has it, and says so. One that is named as gone does not count. Returns the
-- number of what has changed, or the id of the one that has the name.
local holder = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '', '^%d+ (.+)$')
if holder == ARGV[1] then
  return tonumber(redis.call('GET', KEYS[2]) or 0)
end
if holder and holder ~= ARGV[3] then
  return holder
end
if holder then
  local sequence = redis.call('INCR', KEYS[2])
  redis.call('PUBLISH', KEYS[1], sequence .. ' - ' .. holder .. ' ' .. ARGV[2])
end
local sequence = redis.call('INCR', KEYS[2])
redis.call('HSET', KEYS[1], ARGV[2], sequence .. ' ' .. ARGV[1])
redis.call('PUBLISH', KEYS[1], sequence .. ' + ' .. ARGV[1] .. ' ' .. ARGV[2])
return sequence
