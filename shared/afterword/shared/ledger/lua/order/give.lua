-- Give an operator's order, or another one in its place.
---@param name string        what and whom, see `order_in`
---@param order string       what it says, JSON
---@param for_ms integer     for how long, or 0
---@param until_ms integer   until when, or 0; without either until it is lifted
---@param most integer       most orders of one shard
---@param rehearsed boolean   whether to answer only what would be answered
-- Answers full | over (its end is not in the future), or 'given', order as it is kept. Limits that it does
--   not name stay as they were.
local bound = for_ms > 0 and now + for_ms or until_ms
if bound > 0 and bound <= now then return answer('over') end
local before = order_in(redis.call('HGET', ORDERS, name))
if not before and #redis.call('HKEYS', ORDERS) >= most then return answer('full') end

local given = cjson.decode(order)
for limit, value in pairs(before and before.limits or {}) do
  given.limits[limit] = given.limits[limit] or value
end
given.since, given['until'] = now, bound
if rehearsed then return answer('given', cjson.encode(given)) end
given.id = tostring(next_sequence())
end_order(name)
local kept = cjson.encode(given)
redis.call('HSET', ORDERS, name, kept)
if bound > 0 then redis.call('ZADD', ORDER_ENDS, bound, name) end
return answer('given', kept)
