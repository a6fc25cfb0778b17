-- Takes a peer away with all that it has, if this client still speaks for it, or one of its host that it has replaced.
local id, client = ARGV[1], ARGV[2]
local owner = redis.call('HGET', KEYS[1], id)
if owner and string.sub(owner, 1, 8) == string.sub(client, 1, 8) then
  for _, document in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    redis.call('SREM', 'parlor:document:' .. document, id)
  end
  redis.call('DEL', KEYS[3])
  redis.call('HDEL', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
end
