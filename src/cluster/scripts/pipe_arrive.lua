-- Takes the end that waits for this one, or has this one wait; returns whom it has met, or whom it has replaced and who
-- waits there and cannot be asked, or who waits in its place. An end that cannot be asked stays: its host or ours arrives
-- again when they meet. One that has been here before replaces nobody.
local client, is_new, hosts, gone = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
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
if other and KEYS[1] == KEYS[2] then
  return {'waits', '', other}
end
local before = redis.call('GET', KEYS[1]) or ''
if is_new == '0' and before ~= '' and before ~= client then
  return {'replaced', before}
end
redis.call('SET', KEYS[1], client)
return {'waits', before, other or ''}
