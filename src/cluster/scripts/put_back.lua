-- Puts a waiter back where it was taken off the list, once.
-- KEYS: the list. ARGV: the waiter.
redis.call('LREM', KEYS[1], 0, ARGV[1])
return redis.call('RPUSH', KEYS[1], ARGV[1])
