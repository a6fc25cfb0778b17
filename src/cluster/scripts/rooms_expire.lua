-- Ends a room if its time is over. Returns how many milliseconds it has left, 0 if it is no more.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = redis.call('HGET', KEYS[2], ARGV[1])
if not room or string.sub(room, 1, 36) ~= ARGV[2] then
  return 0
end
local left = (redis.call('ZSCORE', KEYS[1], ARGV[1]) or now) - now
if left > 0 then
  return left
end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 0
