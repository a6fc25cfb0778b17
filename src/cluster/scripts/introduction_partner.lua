-- Returns whom a peer was introduced to, if each to the other and to nobody else, over one document, and both are there.
local function only(id)
  local length, rest = string.match(redis.call('HGET', KEYS[2], id) or '', '^(%d+):(.*)$')
  if length then
    return string.sub(rest, 1, tonumber(length)), string.sub(rest, tonumber(length) + 1)
  end
end
local remote = ARGV[1]
local partner, document = only(remote)
local clients = partner and redis.call('HMGET', KEYS[1], remote, partner)
if not partner or only(partner) ~= remote or not clients[1] or not clients[2] then
  return {}
end
return {clients[1], clients[2], partner, document}
