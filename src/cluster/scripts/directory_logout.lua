-- Takes a name from a client if it has it, and says so.
local holder = string.match(redis.call('HGET', KEYS[1], ARGV[2]) or '', '^%d+ (.+)$')
if holder == ARGV[1] then
  local sequence = redis.call('INCR', KEYS[2])
  redis.call('HDEL', KEYS[1], ARGV[2])
  redis.call('PUBLISH', KEYS[1], sequence .. ' - ' .. ARGV[1] .. ' ' .. ARGV[2])
end
