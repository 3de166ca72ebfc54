-- Empty the records of an erased user's jobs: their states stay, their content does not.
---@param lane string
---@param fence string
---@param retention_ms integer
---@param known_version integer   newest version of records that the caller knows
---@param ids string[]            jobs; those of other users are left alone
-- Answers ok, how many ids were looked at: call again with the rest; or lost. A record newer than the caller knows is lost, too: the lane is released for a worker
--   that knows it. The receipt counts what was found.
if not holds_lane(lane, fence) then return answer('lost') end
local erased_sequence = tonumber(redis.call('HGET', erasure_key(lane), 'sequence'))
local KEPT = { version = 1, state = 1, turn = 1, tenant = 1, created = 1, ended = 1, deadline = 1,
  attempts = 1, code = 1, agenda = 1 }
local function stop(id)
  stop_job(id, 'erased', retention_ms, 1)
  redis.call('HINCRBY', erasure_key(lane), 'ended', 1)
end

local function empty(id)
  local job = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'idempotency')
  if job[1] ~= 'none' then set_turn_state(id, job[2], job[1], 'erased') end
  for key in string.gmatch(job[3] or '', '%S+') do redis.call('UNLINK', idempotency_key(key)) end
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', job_key(id))) do
    if not KEPT[name] then gone[#gone + 1] = name end
  end
  redis.call('HDEL', job_key(id), unpack(gone))
  redis.call('UNLINK', events_key(id))
  redis.call('ZREM', DEAD_TURNS, id)
  redis.call('ZREM', FAILED_JOBS, id)
  redis.call('ZREM', DUPLICATE_CHECKS, id)
  redis.call('ZREM', LATE_COPIES, id)
  redis.call('ZREM', LOST_ATTEMPTS, id)
  retain(id, retention_ms)
  redis.call('HINCRBY', erasure_key(lane), 'jobs', 1)
end

local function is_theirs(id)
  local job = redis.call('HMGET', job_key(id), 'lane', 'sequence')
  return job[1] == lane and tonumber(job[2]) <= erased_sequence
end

local MOST = 5                      -- jobs that one call empties
local theirs, seen = {}, 0
for _, id in ipairs(ids) do
  if #theirs == MOST then break end
  seen = seen + 1
  if is_theirs(id) then theirs[#theirs + 1] = id end
end
for _, id in ipairs(theirs) do
  local version = newer_version(id, known_version)
  if version then
    redis.call('HDEL', FENCES, lane)
    hold(LANES, lane, version)
    return answer('lost')
  end
end
for _, id in ipairs(theirs) do
  if is_open(id) then stop(id) end
  empty(id)
end
if #theirs > 0 then leave_lane(lane, theirs, redis.call('HGET', job_key(theirs[1]), 'tenant')) end
return answer('ok', seen)
