-- Registers a peer; returns who spoke for its id before, what it inherits, and who has documents in common with it.
local id, client, scope, known = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local takes, whole, bytes_left, added = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7]), tonumber(ARGV[8])
local here, hosts = string.sub(client, 1, 8), ARGV[9]
local before = redis.call('HGET', KEYS[1], id) or ''
local is_other = before ~= '' and before ~= client
if is_other and not takes then
  return {before}
end
redis.call('HSET', KEYS[1], id, client)
local inherited = {}
local acquaintance = redis.call('HGET', KEYS[2], id) or ''
if is_other then
  inherited = redis.call('ZRANGE', KEYS[3], 0, -1)
elseif whole then
  for _, document in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
    redis.call('SREM', 'parlor:document:' .. document, id)
  end
  redis.call('DEL', KEYS[3])
end
local position = tonumber(redis.call('ZRANGE', KEYS[3], -1, -1, 'WITHSCORES')[2] or 0)
for at = 10, 9 + added do
  position = position + 1
  redis.call('ZADD', KEYS[3], 'NX', position, ARGV[at])
  redis.call('SADD', 'parlor:document:' .. ARGV[at], id)
end
for at = 10 + added, #ARGV do
  redis.call('ZREM', KEYS[3], ARGV[at])
  redis.call('SREM', 'parlor:document:' .. ARGV[at], id)
end
local function remember(who, now)
  local was = redis.call('HGET', KEYS[2], who)
  if now ~= was then
    redis.call('HSET', KEYS[2], who, was and '+' or now)
  end
end
if known ~= '' then
  remember(id, known)
end
local reply = {before, #inherited}
for _, document in ipairs(inherited) do
  reply[#reply + 1] = document
end
reply[#reply + 1] = acquaintance
if scope == '' then
  return reply
end
local others, meetings = {}, {}
for _, document in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  for _, other in ipairs(redis.call('SMEMBERS', 'parlor:document:' .. document)) do
    if other ~= id then
      if not meetings[other] then
        others[#others + 1], meetings[other] = other, {}
      end
      table.insert(meetings[other], document)
    end
  end
end
for _, other in ipairs(others) do
  local owner, documents = redis.call('HGET', KEYS[1], other), meetings[other]
  local host = owner and string.sub(owner, 1, 8)
  local is_meant = owner and (scope == 'all' or scope == host or scope == 'others' and host ~= here)
  if is_meant and (host == here or string.find(hosts, host, 1, true)) then
    local is_one = #documents == 1
    remember(id, is_one and #other .. ':' .. other .. documents[1] or '+')
    remember(other, is_one and #id .. ':' .. id .. documents[1] or '+')
  end
  if is_meant and host ~= here then
    reply[#reply + 1], reply[#reply + 2], reply[#reply + 3] = other, owner, #documents
    for _, document in ipairs(documents) do
      bytes_left = bytes_left - #document
      reply[#reply + 1] = document
    end
    if bytes_left < 0 then
      return {'!'}
    end
  end
end
return reply
