-- Read what this ledger is, for one that fills it; write it, if the ledger is new.
---@param layout integer    version of the keys that the caller knows
---@param shards integer    that the caller spreads users over
---@param records integer   newest version of records that the caller writes
---@param name string       name of the ledger, if it has none yet
---@param servers integer   servers that share its shards; 0 if it is one, or not all know it yet
-- Answers {field, value, ...}. A caller that does not fit writes nothing.
local known = redis.call('HMGET', IDENTITY, 'layout', 'shards', 'records')
local fits = tonumber(known[1]) == layout and tonumber(known[2]) == shards
if not known[1] then
  redis.call('HSET', IDENTITY, 'layout', layout, 'shards', shards, 'records', records)
  redis.call('HSETNX', IDENTITY, 'name', name)
elseif fits and tonumber(known[3]) < records then
  redis.call('HSET', IDENTITY, 'records', records)
end
if servers > 0 and (fits or not known[1]) then
  redis.call('HSETNX', IDENTITY, 'servers', servers)
end
return answer(redis.call('HGETALL', IDENTITY))
