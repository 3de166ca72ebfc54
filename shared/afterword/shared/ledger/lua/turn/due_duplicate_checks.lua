-- Give out stored turns that are due to be checked for duplicates in mem0. Each is given out again
-- later, until its check is finished.
---@param limit integer           most turns
---@param again_ms integer        when a turn is given out again
---@param known_version integer   newest version of records that the caller knows
-- Answers {turn id, lane, memory ids (JSON)}, ...
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DUPLICATE_CHECKS, '-inf', now, 'LIMIT', 0, limit)) do
  local turn = redis.call('HMGET', job_key(id), 'turn', 'lane', 'memory_ids')
  if newer_version(id, known_version) then
    redis.call('ZADD', DUPLICATE_CHECKS, now + again_ms, id)
  elseif turn[1] == 'stored' then
    redis.call('ZADD', DUPLICATE_CHECKS, now + again_ms, id)
    due[#due + 1] = { id, turn[2], turn[3] }
  else
    redis.call('ZREM', DUPLICATE_CHECKS, id) -- erased, or its record is gone
  end
end
return answer(due)
