-- Take the message batches that are due: nobody else is given them for some time. Those that are gone
-- are forgotten.
---@param lease_ms integer
---@param limit integer      most batches
-- Answers their names: {name, ...}.
local taken = {}
for _, name in ipairs(redis.call('ZRANGEBYSCORE', MESSAGE_BATCHES, '-inf', now, 'LIMIT', 0, limit)) do
  if redis.call('EXISTS', message_batch_key(name)) == 1 then
    redis.call('ZADD', MESSAGE_BATCHES, now + lease_ms, name)
    taken[#taken + 1] = name
  else
    redis.call('ZREM', MESSAGE_BATCHES, name)
  end
end
return answer(taken)
