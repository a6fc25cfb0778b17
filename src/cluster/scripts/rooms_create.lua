-- Makes a room under an id that is free and returns that; nothing if all are taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local function take(id)
  if redis.call('ZADD', KEYS[1], 'NX', now + ARGV[1], id) == 0 then
    return false
  end
  redis.call('HSET', KEYS[2], id, ARGV[2] .. ' ' .. ARGV[3])
  return true
end
for at = 5, #ARGV do
  if take(ARGV[at]) then
    return ARGV[at]
  end
end
-- Few are free: one of all that are.
local taken, free = {}, {}
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  taken[id] = true
end
for id = 1000, 9999 do
  if not taken[tostring(id)] then
    free[#free + 1] = tostring(id)
  end
end
local id = #free > 0 and free[ARGV[4] % #free + 1]
return id and take(id) and id
