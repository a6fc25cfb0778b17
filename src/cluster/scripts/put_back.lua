-- Puts waiters where they were taken off the list, each once; the last one is the oldest.
-- KEYS: the list. ARGV: waiters.
for _, waiter in ipairs(ARGV) do
  redis.call('LREM', KEYS[1], 0, waiter)
  redis.call('RPUSH', KEYS[1], waiter)
end
return {'waits'}
