-- Give up a dead letter for good.
---@param id string               job
---@param kind string             memory | reply
---@param replays integer         how often it was replayed before it was chosen
---@param known_version integer   newest version of records that the caller knows
---@param retention_ms integer
-- Answers gone | refused (it is no dead letter, was buried again since, or is newer) | discarded.
local job = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'state', 'replays', 'replayed_as',
  'discarded', 'body')
if not job[1] then return answer('gone') end
if newer_version(id, known_version) then return answer('refused') end

local function discard_turn()
  if job[1] ~= 'dead' or tonumber(job[4] or 0) ~= replays then return false end
  set_turn_state(id, job[2], 'dead', 'skipped')
  redis.call('HSET', job_key(id), 'turn_code', 'discarded')
  redis.call('HDEL', job_key(id), 'facts')
  redis.call('ZREM', DEAD_TURNS, id)
  return true
end

-- A failed job without a body belongs to an erased user.
local function discard_job()
  if job[3] ~= 'failed' or job[5] or job[6] or not job[7] then return false end
  redis.call('ZREM', FAILED_JOBS, id)
  redis.call('HSET', job_key(id), 'discarded', now)
  return true
end

local done
if kind == 'memory' then done = discard_turn() else done = discard_job() end
if not done then return answer('refused') end
add_step(id, 'discard')
retain(id, retention_ms)
return answer('discarded')
