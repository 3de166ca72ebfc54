-- Give out jobs that ended before their last attempt told what it used: its worker is gone. Each is given out
-- again later, until `job/count_usage` has counted that attempt.
---@param limit integer           most jobs
---@param again_ms integer        when a job is given out again
---@param known_version integer   newest version of records that the caller knows
---@param overlay_turns integer   most turns of the overlay
---@param history_turns integer   most turns of the conversation
---@param most_bytes integer      of each of the two: once so much is read, the rest is left out
-- Answers {id, fence, lane, body, bytes of a reply that the attempt published, overlay, history}, ...
local due = {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', LOST_ATTEMPTS, '-inf', now, 'LIMIT', 0, limit)) do
  local job = redis.call('HMGET', job_key(id), 'fence', 'lane', 'body', 'sequence', 'conversation')
  local fence, lane, body, sequence, conversation = unpack(job)
  if not body then
    redis.call('ZREM', LOST_ATTEMPTS, id) -- erased, or its record is gone
  else
    redis.call('ZADD', LOST_ATTEMPTS, now + again_ms, id)
    local erasing, history = is_being_erased(lane), {}
    if conversation and not erasing then history = newest_history(conversation, history_turns, most_bytes) end
    if not newer_version(id, known_version) then
      due[#due + 1] = { id, fence, lane, body, published_bytes(id, fence),
        overlay(lane, sequence, erasing, overlay_turns, most_bytes, known_version), history }
    end
  end
end
return answer(due)
