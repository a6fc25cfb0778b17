-- Returns all names, each followed by what is known of it, and the number of the last change.
local names = redis.call('HGETALL', KEYS[1])
names[#names + 1] = redis.call('GET', KEYS[2]) or '0'
return names
