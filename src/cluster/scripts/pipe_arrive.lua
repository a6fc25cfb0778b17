-- Takes the end that waits for this one, or has this one wait; returns whom it has met, or whom it has replaced. One that
-- has been here before replaces nobody.
local other = redis.call('GET', KEYS[2])
if other and other ~= ARGV[1] then
  redis.call('DEL', KEYS[2])
  if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
  end
  return {'met', other}
end
local before = redis.call('GET', KEYS[1]) or ''
if ARGV[2] == '0' and before ~= '' and before ~= ARGV[1] then
  return {'replaced', before}
end
redis.call('SET', KEYS[1], ARGV[1])
return {'waits', before}
