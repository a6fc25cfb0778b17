-- Notes that a peer and others were introduced to each other: to nobody else, over one document, or to more.
local id = ARGV[1]
local function remember(who, now)
  local was = redis.call('HGET', KEYS[2], who)
  if now ~= was and redis.call('HEXISTS', KEYS[1], who) == 1 then
    redis.call('HSET', KEYS[2], who, was and '+' or now)
  end
end
for at = 2, #ARGV, 3 do
  local other, is_one, document = ARGV[at], ARGV[at + 1] == '1', ARGV[at + 2]
  remember(id, is_one and #other .. ':' .. other .. document or '+')
  remember(other, is_one and #id .. ':' .. id .. document or '+')
end
