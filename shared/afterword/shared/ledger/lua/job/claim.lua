-- Take on a job, under a new fence, with all that its reply needs.
--   ARGV[2] job id  [3] token of this claim: asked twice, it is granted once  [4] lease, ms
--   [5] most attempts  [6] newest version we know  [7] most overlay turns  [8] most history turns
--   [9] retention, ms  [10] stream retention, ms  [11] retention of a failed job, ms
-- Answers gone | held | taken | ended | behind (its conversation has an older job), or: claimed, fence, attempt, snoozes, now, created,
--   deadline, body, lane, turn, {overlay: id, created, turn state, body, reply, ...}, {history: JSON, ...},
--   erasing, 1 or 0: while its user is being erased, nothing said before the asking is handed out (I12),
--   queued: a replayed job was created when its letter was, and queued when it was replayed
local id, token = ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'v', 'state', 'agenda', 'attempts', 'deadline', 'token',
  'fence', 'created', 'body', 'lane', 'turn', 'seq', 'tenant', 'talk', 'snoozes',
  'queued')
local version, state, agenda, attempts, deadline = job[1], job[2], job[3], job[4], job[5]

local function overlay(lane, seq, erasing)
  local found = {}
  local since = erasing and '(' .. redis.call('HGET', erasure_key(lane), 'seq') or '-inf'
  local ids = redis.call('ZREVRANGEBYSCORE', lane_key(lane), '(' .. seq, since, 'LIMIT', 0, ARGV[7] * 2)
  for _, each in ipairs(ids) do
    local turn = redis.call('HMGET', job_key(each), 'created', 'turn', 'body', 'reply', 'v')
    local known = turn[5] and tonumber(turn[5]) <= tonumber(ARGV[6])
    if known and (turn[2] == 'pending' or turn[2] == 'writing') and #found < ARGV[7] * 5 then
      for _, field in ipairs({ each, turn[1], turn[2], turn[3], turn[4] }) do found[#found + 1] = field end
    end
  end
  return found
end

local function granted(fence, attempt)
  local history, erasing = {}, is_being_erased(job[10])
  if job[14] and not erasing and tonumber(ARGV[8]) > 0 then
    history = redis.call('LRANGE', talk_key(job[14]), -ARGV[8], -1)
  end
  return answer('claimed', fence, attempt, job[15] or 0, now, job[8], deadline, job[9], job[10],
    job[11], overlay(job[10], job[12], erasing), history, erasing and 1 or 0,
    job[16] or job[8])
end

if not state then return answer('gone') end
if tonumber(version) > tonumber(ARGV[6]) then
  local leased = tonumber(redis.call('ZSCORE', place('leased', agenda), id) or 0)
  if is_open(id) and leased <= now then hold(agenda, id, version) end
  return answer('held')
end
if state == 'running' then
  if job[6] == token then return granted(job[7], tonumber(attempts)) end
  local leased = tonumber(redis.call('ZSCORE', place('leased', agenda), id) or 0)
  if leased > now then return answer('taken') end
elseif state ~= 'queued' then
  return answer('ended')
end
if tonumber(deadline) <= now then
  end_job(id, 'expired', 'deadline', ARGV[9], ARGV[10])
  return answer('ended')
end
if tonumber(attempts) >= tonumber(ARGV[5]) then
  end_job(id, 'failed', 'crashed_too_often', ARGV[11], ARGV[10])
  return answer('ended')
end
if state == 'queued' and steps_aside(id, agenda, job[14], job[12]) then return answer('behind') end

local fence, attempt = next_number(), attempts + 1
redis.call('HSET', job_key(id), 'fence', fence, 'attempts', attempt, 'token', token)
redis.call('HDEL', job_key(id), 'aside')
if state == 'queued' then set_job(id, job[13], 'queued', 'running') end
lease(agenda, id, ARGV[4])
local again = redis.call('EXISTS', events_key(id)) == 1
emit(id, fence .. '-0', 'type', again and 'restart' or 'started', 'attempt', attempt)
return granted(fence, attempt)
