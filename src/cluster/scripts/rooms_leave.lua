-- Takes a host out of a room.
local room = redis.call('HGET', KEYS[2], ARGV[1])
if room and string.sub(room, 1, 36) == ARGV[2] then
  redis.call('HSET', KEYS[2], ARGV[1], (string.gsub(room, ' ' .. ARGV[3], '')))
end
