-- Check that records are where their states say they must be; restore what is missing, if asked to.
---@param fix boolean
---@param known_version integer   newest version of records that the caller knows
---@param ids string[]            jobs; all are checked at the same moment
-- Answers a list of {job id, problem}.
local found = {}

local function report(id, problem, repair)
  found[#found + 1] = { id, problem }
  if fix then repair() end
end

local function in_lane(lane, id) return redis.call('ZSCORE', lane_key(lane), id) end

local function in_conversation_queue(conversation, id)
  return redis.call('ZSCORE', conversation_queue_key(conversation), id)
end

-- An open job has a deadline that the sweep sees, and is hinted, leased or waiting for a time.
local function check_open_job(id, job)
  if job.conversation and not in_conversation_queue(job.conversation, id) then
    report(id, 'not_in_conversation_queue', function()
      redis.call('ZADD', conversation_queue_key(job.conversation), job.sequence, id)
    end)
  end
  if not redis.call('ZSCORE', OPEN, id) then
    report(id, 'not_open', function()
      redis.call('ZADD', OPEN, job.deadline, id)
      count_open_job(id, 1, job.agenda, owners_of(job.lane, job.tenant, job.conversation))
    end)
  end
  if not is_placed(job.agenda, id) then
    report(id, 'not_placed', function() hint_job(job.agenda, id, job.tenant) end)
  end
  if job.turn == 'awaited' and not in_lane(job.lane, id) then
    report(id, 'not_awaited', function() redis.call('ZADD', lane_key(job.lane), job.sequence, id) end)
  end
end

-- A turn that is to be stored stands in its lane, and its lane is hinted, leased or waiting, unless an
-- older job of the same user has not ended.
local function check_waiting_turn(id, job)
  if not in_lane(job.lane, id) then
    report(id, 'not_in_lane', function()
      enter_lane(job.lane, id, job.tenant, job.sequence, job.created)
    end)
  end
  local head = redis.call('ZRANGE', lane_key(job.lane), 0, 0)[1]
  local waits = head and redis.call('HGET', job_key(head), 'turn') == 'awaited'
  if not waits and not is_placed(LANES, job.lane) then
    report(id, 'lane_not_placed', function() hint_idle_lane(job.lane) end)
  end
end

local function drop_turn(id, job)
  set_turn_state(id, job.tenant, 'awaited', 'none')
  redis.call('ZREM', lane_key(job.lane), id)
  hint_idle_lane(job.lane)
end

-- A worker of an older version claims a job without taking it out of its tenant's queue. That is no
-- inconsistency: a false name costs one look. But nobody looks while no other tenant has jobs.
local function drop_false_share(id, job)
  if job.state == 'queued' and redis.call('ZSCORE', place_key('hinted', job.agenda), id) then return end
  if leave_share_queue(job.agenda, id, job.tenant) then leave_shares(job.agenda, job.tenant) end
end

local FIELDS = { 'version', 'state', 'turn', 'tenant', 'lane', 'agenda', 'sequence', 'deadline', 'created',
  'conversation' }
local function check(id)
  local job = {}
  for i, value in ipairs(redis.call('HMGET', job_key(id), unpack(FIELDS))) do job[FIELDS[i]] = value end
  if not job.state or tonumber(job.version) > known_version then return end
  if fix then drop_false_share(id, job) end
  if job.state == 'queued' or job.state == 'running' then return check_open_job(id, job) end
  if job.turn == 'awaited' then
    return report(id, 'never_came', function() drop_turn(id, job) end)
  end
  if job.turn == 'pending' or job.turn == 'writing' then return check_waiting_turn(id, job) end
  if job.turn == 'dead' and not redis.call('ZSCORE', DEAD_TURNS, id) then
    report(id, 'not_listed', function() redis.call('ZADD', DEAD_TURNS, now, id) end)
  end
end

for _, id in ipairs(ids) do check(id) end
return answer(found)
