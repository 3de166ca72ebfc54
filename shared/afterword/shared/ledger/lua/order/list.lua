-- List the orders that are in force.
---@param most integer   most of them
-- Answers a list of {name, order, how many wait for its end}; those that were woken by something else
--   meanwhile are counted for up to an hour.
local found, fields = {}, redis.call('HGETALL', ORDERS)
for i = 1, #fields, 2 do
  local order = order_in(fields[i + 1])
  if order and #found < most then
    found[#found + 1] = { fields[i], fields[i + 1], redis.call('ZCARD', parked_key(order.id)) }
  end
end
return answer(found)
