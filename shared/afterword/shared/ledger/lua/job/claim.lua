-- Claim a job under a new fence, and read all that its reply needs.
---@param id string               job
---@param token string            names this claim: repeated with it, the same claim is granted
---@param lease_ms integer
---@param max_attempts integer
---@param known_version integer   newest version of records that the caller knows
---@param overlay_turns integer   most turns of the overlay
---@param history_turns integer   most turns of the conversation
---@param most_bytes integer      of each of the two: once so much is read, the rest is left out
---@param retention_ms integer
---@param stream_ms integer       retention of the stream
---@param failed_ms integer       retention of a failed job
---@param ahead boolean           whether its hint was taken before older ones, which are not lost
---@param worker string           who claims it
-- Answers a status: gone | held | taken | ended | behind (its conversation has an older open job) |
--   parked (an operator's order lets it wait), or
--   'claimed', {field, value, ...}. While the user is being erased ('erasing' is 1), nothing said before
--   the erasure was requested is given out (I12). A replayed job was 'created' when the failed job was,
--   and 'queued' when it was replayed. 'previous' is the fence of the attempt before, if there was one.
local job = redis.call('HMGET', job_key(id), 'version', 'state', 'agenda', 'attempts', 'deadline', 'token',
  'fence', 'created', 'body', 'lane', 'turn', 'sequence', 'tenant', 'conversation', 'snoozes',
  'queued', 'started', 'trace', 'story')
local version, state, agenda, attempts, deadline = job[1], job[2], job[3], job[4], job[5]

-- The user's turns before this one that are not in memory yet, newest first.
local function overlay(lane, sequence, erasing)
  local turns, bytes = {}, 0
  local since = erasing and '(' .. redis.call('HGET', erasure_key(lane), 'sequence') or '-inf'
  local ids = redis.call('ZREVRANGEBYSCORE', lane_key(lane), '(' .. sequence, since, 'LIMIT', 0,
    overlay_turns * 2)
  for _, each in ipairs(ids) do
    local turn = redis.call('HMGET', job_key(each), 'created', 'turn', 'body', 'reply', 'version')
    local known = turn[5] and tonumber(turn[5]) <= known_version
    if known and (turn[2] == 'pending' or turn[2] == 'writing') and #turns < overlay_turns then
      local reply = turn[4] or ''   -- its job was stopped
      turns[#turns + 1] = { each, turn[1], turn[3], reply }
      bytes = bytes + #turn[3] + #reply
    end
    if bytes > most_bytes then break end
  end
  return turns
end

-- The newest turns of the conversation, newest first, read a few at a time: each may be long.
local AT_ONCE = 4
local function newest_history(conversation)
  local turns, bytes, left = {}, 0, history_turns
  while left > 0 and bytes <= most_bytes do
    local last = #turns + 1
    local few = redis.call('LRANGE', conversation_key(conversation), -#turns - math.min(AT_ONCE, left),
      -last)
    for i = #few, 1, -1 do
      turns[#turns + 1] = few[i]
      bytes = bytes + #few[i]
    end
    left = #few < AT_ONCE and 0 or left - #few
  end
  return turns
end

local function granted(fence, attempt)
  local history, erasing = {}, is_being_erased(job[10])
  if job[14] and not erasing then history = newest_history(job[14]) end
  return answer('claimed', { 'fence', fence, 'attempt', attempt, 'snoozes', job[15] or 0, 'claimed', now,
    'created', job[8], 'queued', job[16] or job[8], 'deadline', deadline, 'body', job[9],
    'lane', job[10], 'turn', job[11], 'sequence', job[12], 'erasing', erasing and 1 or 0,
    'trace', job[18] or '', 'previous', job[7] or '',
    'overlay', overlay(job[10], job[12], erasing), 'history', history })
end

if not state then return answer('gone') end
if tonumber(version) > known_version then
  local leased = tonumber(redis.call('ZSCORE', place_key('leased', agenda), id) or 0)
  if is_open(id) and leased <= now then hold(agenda, id, version) end
  return answer('held')
end
if state == 'running' then
  if job[6] == token then return granted(job[7], tonumber(attempts)) end
  local leased = tonumber(redis.call('ZSCORE', place_key('leased', agenda), id) or 0)
  if leased > now then return answer('taken') end
elseif state ~= 'queued' then
  return answer('ended')
end
if tonumber(deadline) <= now then
  end_job(id, 'expired', 'deadline', retention_ms, stream_ms)
  return answer('ended')
end
if tonumber(attempts) >= max_attempts then
  end_job(id, 'failed', 'crashed_too_often', failed_ms, stream_ms)
  return answer('ended')
end
if state == 'queued' and set_aside(id, agenda, job[14], job[12]) then return answer('behind') end
if state == 'queued' and park_job(id, agenda, job[13], job[10], tonumber(deadline)) then
  return answer('parked')
end

local fence, attempt = next_sequence(), attempts + 1
redis.call('HSET', job_key(id), 'fence', fence, 'attempts', attempt, 'token', token,
  'started', job[17] or now, 'story', with_step(job[19], 'claim', attempt, worker))
redis.call('HDEL', job_key(id), 'aside', 'parked', 'slot')
if state == 'queued' then set_job_state(id, job[13], 'queued', 'running') end
lease(agenda, id, lease_ms, ahead)
local again = redis.call('EXISTS', events_key(id)) == 1
emit(id, fence .. '-0', 'type', again and 'restart' or 'started', 'attempt', attempt)
return granted(fence, attempt)
