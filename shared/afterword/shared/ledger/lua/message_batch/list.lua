-- List the message batches that nobody has done with.
---@param limit integer   most batches
-- Answers {name, provider's id, ids that are not ours, ms since it was opened, turns that wait}, ...
local found = {}
for _, name in ipairs(redis.call('ZRANGE', MESSAGE_BATCHES, 0, limit - 1)) do
  local batch = redis.call('HMGET', message_batch_key(name), 'provider', 'not_ours', 'opened')
  if batch[3] then
    found[#found + 1] = { name, batch[1], batch[2] or '', now - batch[3],
      redis.call('SCARD', message_batch_turns_key(name)) }
  end
end
return answer(found)
