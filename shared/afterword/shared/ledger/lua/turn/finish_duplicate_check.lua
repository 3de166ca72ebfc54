-- Record that mem0 holds a batch once, and as which memories.
---@param id string           first turn of the batch
---@param memory_ids string   JSON
-- Answers ok.
redis.call('ZREM', DUPLICATE_CHECKS, id)
for _, each in ipairs(batch_of(id)) do
  for _, key in ipairs({ job_key(each), story_key(each) }) do
    if redis.call('HEXISTS', key, 'memory_ids') == 1 then redis.call('HSET', key, 'memory_ids', memory_ids) end
  end
end
return answer('ok')
