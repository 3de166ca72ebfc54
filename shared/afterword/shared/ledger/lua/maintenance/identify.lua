-- Read what this ledger is, for one that fills it; write it, if the ledger is new.
---@param layout integer    version of the keys that the caller knows
---@param shards integer    that the caller spreads users over
---@param records integer   newest version of records that the caller writes
---@param name string       name of the ledger, if it has none yet
-- Answers {field, value, ...}. A caller that does not fit writes nothing.
local known = redis.call('HMGET', IDENTITY, 'layout', 'shards', 'records')
local fits = tonumber(known[1]) == layout and tonumber(known[2]) == shards
if not known[1] then
  redis.call('HSET', IDENTITY, 'layout', layout, 'shards', shards, 'records', records)
  redis.call('HSETNX', IDENTITY, 'name', name)
elseif fits and tonumber(known[3]) < records then
  redis.call('HSET', IDENTITY, 'records', records)
end
return answer(redis.call('HGETALL', IDENTITY))
