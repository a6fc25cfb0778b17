-- Takes the oldest other waiter off the list, and ours with it; if there is none, ours is on the list, once.
-- KEYS: the list; the roll of hosts. ARGV: ours; 1 if it should be there already, and nothing is done if it is not; others
-- that are left where they are.
local was_there = redis.call('LREM', KEYS[1], 0, ARGV[1]) > 0
if ARGV[2] == '1' and not was_there then
  return {'missing'}
end
local left = {}
for at = 3, #ARGV do
  left[ARGV[at]] = true
end
local place = -1
local other = redis.call('LINDEX', KEYS[1], place)
while other and left[other] do
  place = place - 1
  other = redis.call('LINDEX', KEYS[1], place)
end
if other then
  redis.call('LREM', KEYS[1], -1, other)
  -- An id of ours begins with the host that made it.
  local maker = redis.call('ZSCORE', KEYS[2], string.sub(other, 1, 8))
  return {'met', other, maker and 'ours' or 'foreign'}
end
redis.call('LPUSH', KEYS[1], ARGV[1])
return {'waits'}
