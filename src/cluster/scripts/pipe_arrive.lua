-- Says whom an end that arrives has met, or has it wait; returns whom it has replaced then and who waits there and cannot
-- be asked, or who is in its place. Whoever is met waits until it says otherwise: this reply may be lost. One that cannot
-- be asked is found or gone later. One that has been here before replaces nobody.
local client, is_new, hosts = ARGV[1], ARGV[2], ARGV[3]
local function can_be_asked(id)
  return string.find(hosts, string.sub(id, 1, 8), 1, true)
end
local other = redis.call('GET', KEYS[2]) or ''
if other ~= '' and other ~= client and can_be_asked(other) then
  return {'met', other}
end
local before = redis.call('GET', KEYS[1]) or ''
if before ~= '' and before ~= client then
  if KEYS[1] == KEYS[2] then
    return {'taken', before}
  elseif is_new == '0' then
    return {'replaced', before}
  elseif not can_be_asked(before) then
    return {'taken', before}
  end
end
redis.call('SET', KEYS[1], client)
return {'waits', before, other}
