-- Look whether records are where they must be, and put back what is not, if asked to.
--   ARGV[2] 1 to put back  [3] newest version we know  then job ids
-- Answers {job id, what is wrong, ...}; each id is looked at in one moment.
local found = {}

local function gap(id, what, mend)
  found[#found + 1] = id
  found[#found + 1] = what
  if ARGV[2] == '1' then mend() end
end

local function in_lane(lane, id) return redis.call('ZSCORE', lane_key(lane), id) end

-- An open job has a deadline that the sweep sees and stands where a hint, a lease or a time to
-- wait brings it on. One of the first release was never put in a line.
local function open_job(id, job)
  if job.lined and not redis.call('ZSCORE', line_key(job.talk), id) then
    gap(id, 'not_in_line', function() redis.call('ZADD', line_key(job.talk), job.seq, id) end)
  end
  if not redis.call('ZSCORE', OPEN, id) then
    gap(id, 'not_open', function() redis.call('ZADD', OPEN, job.deadline, id) end)
  end
  if not placed(job.agenda, id) then
    gap(id, 'not_placed', function() hint(job.agenda, id) end)
  end
  if job.turn == 'awaited' and not in_lane(job.lane, id) then
    gap(id, 'not_awaited', function() redis.call('ZADD', lane_key(job.lane), job.seq, id) end)
  end
end

-- A turn that is to be stored stands in its lane, and its lane is on its way, unless an older job
-- of the same user has not ended.
local function waiting_turn(id, job)
  if not in_lane(job.lane, id) then
    gap(id, 'not_in_lane', function()
      enter_lane(job.lane, id, job.tenant, job.seq, job.created)
    end)
  end
  local head = redis.call('ZRANGE', lane_key(job.lane), 0, 0)[1]
  local waits = head and redis.call('HGET', job_key(head), 'turn') == 'awaited'
  if not waits and not placed(LANES, job.lane) then
    gap(id, 'lane_not_placed', function() nudge(job.lane) end)
  end
end

local function never(id, job)
  set_turn(id, job.tenant, 'awaited', 'none')
  redis.call('ZREM', lane_key(job.lane), id)
  nudge(job.lane)
end

local FIELDS = { 'v', 'state', 'turn', 'tenant', 'lane', 'agenda', 'seq', 'deadline', 'created',
  'talk', 'lined' }
local function look_at(id)
  local job = {}
  for i, value in ipairs(redis.call('HMGET', job_key(id), unpack(FIELDS))) do job[FIELDS[i]] = value end
  if not job.state or tonumber(job.v) > tonumber(ARGV[3]) then return end
  if job.state == 'queued' or job.state == 'running' then return open_job(id, job) end
  if job.turn == 'awaited' then return gap(id, 'never_came', function() never(id, job) end) end
  if job.turn == 'pending' or job.turn == 'writing' then return waiting_turn(id, job) end
  if job.turn == 'dead' and not redis.call('ZSCORE', DEAD, id) then
    gap(id, 'not_listed', function() redis.call('ZADD', DEAD, now, id) end)
  end
end

for i = 4, #ARGV do look_at(ARGV[i]) end
return answer(found)
