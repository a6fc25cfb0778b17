-- Says whom an end that arrives has met, or has it wait; returns who waits for it then and cannot be asked, or who is in its
-- place. Whoever is met or in the way waits until it says otherwise: this reply may be lost.
local client, hosts = ARGV[1], ARGV[2]
local other = redis.call('GET', KEYS[2]) or ''
if other ~= '' and other ~= client and string.find(hosts, string.sub(other, 1, 8), 1, true) then
  return {'met', other}
end
local before = redis.call('GET', KEYS[1]) or ''
if before ~= '' and before ~= client then
  return {'taken', before}
end
redis.call('SET', KEYS[1], client)
return {'waits', other}
