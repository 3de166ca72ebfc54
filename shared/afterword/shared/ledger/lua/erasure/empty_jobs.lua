-- Empty the records of an erased user's jobs: what they were stays, what was said does not.
--   ARGV[2] lane id  [3] fence  [4] retention, ms  [5] newest version we know  then job ids; those
--   of others are passed over
-- Answers ok | lost: also if a record is newer than we know, then the lane is let go of, for a worker
-- that knows it. What was found is counted on the receipt.
local lane, fence = ARGV[2], ARGV[3]
if not holds_lane(lane, fence) then return answer('lost') end
local seq = tonumber(redis.call('HGET', erasure_key(lane), 'seq'))
local KEPT = { v = 1, state = 1, turn = 1, tenant = 1, created = 1, ended = 1, deadline = 1,
  attempts = 1, code = 1, agenda = 1 }
local function stop(id)
  stop_job(id, 'erased', ARGV[4], 1)
  redis.call('HINCRBY', erasure_key(lane), 'ended', 1)
end

local function empty(id)
  local job = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'idem')
  if job[1] ~= 'none' then set_turn(id, job[2], job[1], 'erased') end
  if job[3] then redis.call('UNLINK', root .. ':idem:' .. job[3]) end
  local gone = {}
  for _, name in ipairs(redis.call('HKEYS', job_key(id))) do
    if not KEPT[name] then gone[#gone + 1] = name end
  end
  redis.call('HDEL', job_key(id), unpack(gone))
  redis.call('UNLINK', events_key(id))
  leave_lane(lane, id, job[2])
  redis.call('ZREM', DEAD, id)
  redis.call('ZREM', FAILED, id)
  redis.call('ZREM', REPAIRS, id)
  retain(id, ARGV[4])
  redis.call('HINCRBY', erasure_key(lane), 'jobs', 1)
end

local function is_theirs(id)
  local job = redis.call('HMGET', job_key(id), 'lane', 'seq')
  return job[1] == lane and tonumber(job[2]) <= seq
end

for i = 6, #ARGV do
  local version = newer(ARGV[i], ARGV[5])
  if version and is_theirs(ARGV[i]) then
    redis.call('HDEL', FENCES, lane)
    hold(LANES, lane, version)
    return answer('lost')
  end
end
for i = 6, #ARGV do
  local id = ARGV[i]
  if is_theirs(id) then
    if is_open(id) then stop(id) end
    empty(id)
  end
end
return answer('ok')
