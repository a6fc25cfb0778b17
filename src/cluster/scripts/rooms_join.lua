-- Puts a host into a room, whose time starts anew, and returns what is known of it; nothing if there is no such room.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
local room = redis.call('HGET', KEYS[2], ARGV[1])
if not expiry or not room or tonumber(expiry) <= now then
  return false
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
if not string.find(room, ' ' .. ARGV[3], 1, true) then
  room = room .. ' ' .. ARGV[3]
  redis.call('HSET', KEYS[2], ARGV[1], room)
end
return room
