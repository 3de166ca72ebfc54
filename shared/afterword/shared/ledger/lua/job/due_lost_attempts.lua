-- Give out attempts that did not tell what they used, though their job ended or was taken from them: their
-- worker is gone. Each is given out again later, until `job/count_usage` has counted it.
---@param limit integer           most attempts
---@param again_ms integer        when an attempt is given out again
---@param known_version integer   newest version of records that the caller knows
---@param overlay_turns integer   most turns of the overlay
---@param history_turns integer   most turns of the conversation
---@param most_bytes integer      of each of the two: once so much is read, the rest is left out
-- Answers {id, fence, lane, body, bytes of a reply that the attempt published, overlay, history}, ...
local due = {}
for _, listed in ipairs(redis.call('ZRANGEBYSCORE', LOST_ATTEMPTS, '-inf', now, 'LIMIT', 0, limit)) do
  local id, overtaken = string.match(listed, '^(%S+) ?(%S*)$')
  local job = redis.call('HMGET', job_key(id), 'fence', 'lane', 'body', 'sequence', 'conversation')
  local newest, lane, body, sequence, conversation = unpack(job)
  local fence = overtaken ~= '' and overtaken or newest
  if not body then
    redis.call('ZREM', LOST_ATTEMPTS, listed) -- erased, or its record is gone
  else
    redis.call('ZADD', LOST_ATTEMPTS, now + again_ms, listed)
    local erasing, history = is_being_erased(lane), {}
    if conversation and not erasing then history = newest_history(conversation, history_turns, most_bytes) end
    if not newer_version(id, known_version) then
      due[#due + 1] = { id, fence, lane, body, published_bytes(id, fence),
        overlay(lane, sequence, erasing, overlay_turns, most_bytes, known_version), history }
    end
  end
end
return answer(due)
