-- Puts back a room that may have been lost, with this host in it and at least the time that it has left. Returns what
-- is known of it, or 0 if its id is another room's by now.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
local room = redis.call('HGET', KEYS[2], ARGV[1])
if not room or expiry <= now then
  room, expiry = ARGV[2], 0
elseif string.sub(room, 1, 36) ~= ARGV[2] then
  return 0
end
if not string.find(room, ' ' .. ARGV[3], 1, true) then
  room = room .. ' ' .. ARGV[3]
end
redis.call('HSET', KEYS[2], ARGV[1], room)
redis.call('ZADD', KEYS[1], math.max(expiry, now + ARGV[4]), ARGV[1])
return room
