-- Record that its user has changed memories of a turn: from now on nobody stores that turn, and what a
-- writer that was under way may still add is removed.
---@param lane string
---@param fence string
---@param id string                first turn of its batch
---@param memory_ids string        JSON: the memories that it has now
---@param left boolean             whether there are any
---@param retention_ms integer
---@param story_ms integer         how long the story of each turn is kept
---@param check_after_ms integer   when no writer can be under way any more
---@param known_version integer    newest version of records that the caller knows
-- Answers ok | lost | newer (the record is left as it is) | storing (mem0 works on what it has accepted,
--   and may make more memories of it) | unknown (the record is gone, or not this user's).
if not holds_lane(lane, fence) then return answer('lost') end
local record = redis.call('HMGET', job_key(id), 'turn', 'lane', 'tenant', 'event')
if not record[1] or record[2] ~= lane then
  for each in string.gmatch(redis.call('HGET', story_key(id), 'batch') or id, '%S+') do
    local kept = redis.call('HMGET', story_key(each), 'lane', 'story')
    if kept[1] == lane then
      redis.call('HSET', story_key(each), 'memory_ids', memory_ids, 'turn_code', left and '' or 'deleted',
        'story', with_step_once(kept[2] or nil, 'mend', left and 'edited' or 'deleted'))
    end
  end
  return answer('unknown')
end
local batch = batch_of(id)
for _, each in ipairs(batch) do
  if newer_version(each, known_version) then return answer('newer') end
end
local OPEN_TURN = { pending = 1, writing = 1, dead = 1 }
if record[4] and OPEN_TURN[record[1]] and record[1] ~= 'dead' then return answer('storing') end
for _, each in ipairs(batch) do
  local turn = redis.call('HGET', job_key(each), 'turn')
  if turn then
    if OPEN_TURN[turn] then
      set_turn_state(each, record[3], turn, left and 'stored' or 'skipped')
      redis.call('HSET', job_key(each), 'turn_ended', now)
    end
    redis.call('HSET', job_key(each), 'memory_ids', memory_ids, 'turn_code', left and '' or 'deleted')
    add_step(each, 'mend', left and 'edited' or 'deleted')
    redis.call('ZREM', DEAD_TURNS, each)
    local kept_ms = math.max(retention_ms, 2 * check_after_ms)
    retain(each, kept_ms)
    keep_story(each, story_ms, kept_ms)
  end
end
redis.call('HDEL', job_key(id), 'turn_intent', 'event', 'event_at', 'turn_doubtful', 'facts', 'message_batch')
redis.call('ZREM', DUPLICATE_CHECKS, id)
redis.call('ZADD', LATE_COPIES, now + check_after_ms, id)
leave_lane(lane, batch, record[3])
return answer('ok')
