-- Takes the end that waits for this one, or has this one wait; returns whom it has met, or whom it has replaced and who
-- waits there and cannot be asked. An end that cannot be asked stays: its host or ours arrives again when they meet.
local client, hosts, gone = ARGV[1], ARGV[2], ARGV[3]
local other = redis.call('GET', KEYS[2])
if other and other == gone then
  redis.call('DEL', KEYS[2])
  other = false
end
if other and other ~= client and string.find(hosts, string.sub(other, 1, 8), 1, true) then
  redis.call('DEL', KEYS[2])
  if redis.call('GET', KEYS[1]) == client then
    redis.call('DEL', KEYS[1])
  end
  return {'met', other}
end
local before = redis.call('GET', KEYS[1]) or ''
if KEYS[1] ~= KEYS[2] or not other then
  redis.call('SET', KEYS[1], client)
end
return {'waits', before, other or ''}
