-- Give out mended turns that are due to be checked for what was added to them later. Each is given out
-- again later, until its check is finished.
---@param limit integer           most turns
---@param again_ms integer        when a turn is given out again
---@param known_version integer   newest version of records that the caller knows
-- Answers {turn id, lane, memory ids (JSON)}, ...
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LATE_COPIES, '-inf', now, 'LIMIT', 0, limit)) do
  local turn = redis.call('HMGET', job_key(id), 'lane', 'memory_ids')
  if turn[1] and turn[2] then
    redis.call('ZADD', LATE_COPIES, now + again_ms, id)
    if not newer_version(id, known_version) then due[#due + 1] = { id, turn[1], turn[2] } end
  else
    redis.call('ZREM', LATE_COPIES, id) -- erased, or its record is gone
  end
end
return answer(due)
