-- Read what this ledger is; write it, if the ledger is new and the caller is one that fills it.
---@param layout integer    version of the keys that the caller knows
---@param shards integer    that the caller spreads users over
---@param records integer   newest version of records that the caller writes
---@param name string       name of the ledger, if it has none yet
---@param found boolean     whether the caller may write
-- Answers {field, value, ...}, nothing if the ledger is new. A caller that does not fit writes nothing.
local known = redis.call('HMGET', IDENTITY, 'layout', 'shards', 'records')
local fits = tonumber(known[1]) == layout and tonumber(known[2]) == shards
if found and not known[1] then
  redis.call('HSET', IDENTITY, 'layout', layout, 'shards', shards, 'records', records)
  redis.call('HSETNX', IDENTITY, 'name', name)
elseif found and fits and tonumber(known[3]) < records then
  redis.call('HSET', IDENTITY, 'records', records)
end
return answer(redis.call('HGETALL', IDENTITY))
