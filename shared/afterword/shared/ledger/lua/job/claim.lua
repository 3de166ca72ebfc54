-- Claim a job under a new fence, and read all that its reply needs. A hint wakes a worker for the tenant
-- whose turn it is: unless that is the tenant of the job it names, another job is claimed, whose own
-- hint then stands for the named one. So there are as many hints as queued jobs.
---@param id string               the job that the hint names
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
---@param running_caps string     most running jobs of a tenant and of a user, 0 for no cap, and the number of shards
-- Answers a status: gone | held | taken | ended | behind (its conversation has an older open job) |
--   parked (an operator's order lets it wait) | capped (its tenant or user runs all it may), or 'claimed',
--   {field, value, ...}. While the user is being erased ('erasing' is 1), nothing said before the erasure was
--   requested is given out (I12). A replayed job was 'created' when the failed job was, and 'queued' when
--   it was replayed. 'previous' is the fence of the attempt before, if there was one; 'lost' says, if that was
--   lost with its worker, how many bytes of a reply it had published, and is '' otherwise.
-- In a record, 'hint' is the job in whose hint this one is claimed, if not in its own; 'stands_for' the
--   job that its own hint stands for; 'served' the token and the job of the claim that this hint was for.
local most_running, most_running_per_user, shards = unpack(read_caps(running_caps))

local FIELDS = { 'version', 'state', 'agenda', 'attempts', 'deadline', 'token', 'fence', 'created', 'body',
  'lane', 'turn', 'sequence', 'tenant', 'conversation', 'snoozes', 'queued', 'started', 'trace', 'story',
  'hint', 'stands_for', 'served', 'capped', 'joined' }
local function read(job_id)
  local job = { id = job_id }
  for i, value in ipairs(redis.call('HMGET', job_key(job_id), unpack(FIELDS))) do job[FIELDS[i]] = value end
  return job
end

local function granted(job, fence, attempt)
  local history, erasing = {}, is_being_erased(job.lane)
  if job.conversation and not erasing then history = newest_history(job.conversation, history_turns, most_bytes) end
  -- Whoever gives a job back takes its token away.
  local is_lost = job.token and job.token ~= token
  return answer('claimed', { 'id', job.id, 'agenda', job.agenda, 'fence', fence, 'attempt', attempt, 'snoozes', job.snoozes or 0,
    'claimed', now, 'created', job.created, 'queued', job.queued or job.created, 'deadline', job.deadline,
    'body', job.body, 'lane', job.lane, 'turn', job.turn, 'sequence', job.sequence,
    'erasing', erasing and 1 or 0, 'trace', job.trace or '', 'joined', job.joined or '',
    'previous', job.fence or '', 'lost', is_lost and published_bytes(job.id, job.fence) or '',
    'overlay', overlay(job.lane, job.sequence, erasing, overlay_turns, most_bytes, known_version), 'history', history })
end

local function count_running(lane, most)
  local running = running_key(lane)
  if redis.call('SCARD', running) < most then return 0 end
  for _, each in ipairs(redis.call('SMEMBERS', running)) do
    if redis.call('HGET', job_key(each), 'state') ~= 'running' then redis.call('SREM', running, each) end
  end
  return redis.call('SCARD', running)
end

-- Returns the owner, ':'tenant or a lane, that runs as many jobs as it may.
local function owner_at_cap(job, limits)
  local most = limits.most_running or most_running
  if most > 0 and shards > 1 then most = cap_part(job.tenant, most, shards) end
  local most_of_user = limits.most_running_per_user or most_running_per_user
  if most > 0 then
    local running = tonumber(redis.call('HGET', COUNTS, 'job:running:' .. job.tenant) or 0)
    if running >= most then return ':' .. job.tenant end
  end
  if most_of_user > 0 and count_running(job.lane, most_of_user) >= most_of_user then return job.lane end
end

local function with_cap(job, owner)
  return with_step_once(job.story, 'cap', string.sub(owner, 1, 1) == ':' and 'tenant_running' or 'user_running')
end

-- A job whose own hint comes while it waits so stays where it is.
local function wait_for_cap(job, owner)
  if job.capped and redis.call('ZSCORE', place_key('waiting', job.agenda), job.id) then return end
  if leave_share_queue(job.agenda, job.id, job.tenant) then leave_shares(job.agenda, job.tenant) end
  move_to('waiting', job.agenda, job.id, job.deadline)
  redis.call('HSET', job_key(job.id), 'capped', 1, 'story', with_cap(job, owner))
  redis.call('ZADD', capped_key(owner), job.sequence, job.id)
  redis.call('ZADD', AT_CAP, 'NX', now + LOOK_AGAIN, owner)
end

-- A tenant at its cap is next again when one of its jobs stops running. Its first job tells so.
local function pass_over(job, next_at)
  leave_shares(job.agenda, job.tenant, next_at)
  redis.call('ZADD', AT_CAP, 'NX', now + LOOK_AGAIN, ':' .. job.tenant)
  redis.call('HSET', job_key(job.id), 'story', with_cap(job, ':' .. job.tenant))
end

-- Returns the job of a tenant that is next: one whose hint was used up, the named one, or the oldest. A hint
-- that was taken ahead is for the newest. A false name in the queue costs a look, and is dropped.
local function next_of(agenda, tenant, named)
  local own = named and named.tenant == tenant and named.id
  if own and ahead then return own end
  local end_of_queue = ahead and -1 or 0
  local first = redis.call('ZRANGE', share_queue_key(agenda, tenant), end_of_queue, end_of_queue, 'WITHSCORES')
  if own and not (first[2] and tonumber(first[2]) < 0) then return own end
  return first[1]
end

local function is_claimable(job, agenda)
  return job.state == 'queued' and job.agenda == agenda and tonumber(job.version) <= known_version
    and tonumber(job.deadline) > now and tonumber(job.attempts) < max_attempts
    and redis.call('ZSCORE', place_key('hinted', agenda), job.id)
    and not (job.conversation and first_in_conversation(job.conversation, job.sequence))
end

local function is_parked(job)
  return park_job(job.id, job.agenda, job.tenant, job.lane, tonumber(job.deadline))
end

-- Returns the job to claim, the limits of its tenant, when that tenant was next, and whether others were
-- queued beside it; or the named job, if there is one, after so many looks in vain.
local LOOKS = 8
local function fairest(agenda, named, limits)
  for _ = 1, LOOKS do
    local front = redis.call('ZRANGE', share_key(agenda), 0, 1, 'WITHSCORES')
    local tenant, next_at = front[1], tonumber(front[2])
    if not tenant then break end
    local chosen = next_of(agenda, tenant, named)
    if not chosen then
      leave_shares(agenda, tenant)
    elseif named and chosen == named.id then
      return named, limits, next_at, front[3]
    else
      local other, its_limits = read(chosen), tenant_limits(tenant) or {}
      if not is_claimable(other, agenda) or is_parked(other) then
        leave_share_queue(agenda, chosen, tenant)
      else
        local owner = owner_at_cap(other, its_limits)
        if not owner then return other, its_limits, next_at, front[3] end
        if owner == ':' .. tenant then pass_over(other, next_at) else wait_for_cap(other, owner) end
      end
    end
  end
  return named, limits
end

-- Moves a tenant back by what it has had. Whoever empties its queue while no other has one owes nothing.
local function count_share(job, limits, next_at, contended)
  local agenda, tenant = job.agenda, job.tenant
  local emptied = leave_share_queue(agenda, job.id, tenant)
  if emptied and not (contended and next_at) then return leave_shares(agenda, tenant) end
  if not next_at then return end
  local clock = share_clock_key(agenda)
  if next_at > tonumber(redis.call('GET', clock) or 0) then redis.call('SET', clock, next_at) end
  next_at = next_at + math.max(1, math.floor(UNIT / (limits.weight or 1)))
  if emptied then return leave_shares(agenda, tenant, next_at) end
  redis.call('ZADD', share_key(agenda), 'XX', next_at, tenant)
end

-- The hint of the named job was taken up for another one, whose hint stands for the named one from now on.
local function exchange_hints(named, other)
  local agenda, hint_of_other = named.agenda, other.hint or other.id
  if not ahead then
    take_up(agenda, named.id)
    redis.call('ZADD', share_queue_key(agenda, named.tenant), named.sequence - DISPLACED, named.id)
    enter_shares(agenda, named.tenant)
  end
  local place = place_key('hinted', agenda)
  redis.call('ZADD', displaced_key(agenda), 'NX', redis.call('ZSCORE', place, named.id) or now, named.id)
  redis.call('ZADD', place, redis.call('ZSCORE', place, other.id), named.id)
  redis.call('HSET', job_key(hint_of_other), 'stands_for', named.id)
  redis.call('HSET', job_key(named.id), 'hint', hint_of_other, 'story', with_step_once(named.story, 'turn'))
end

local function begin_attempt(job, limits)
  local fence, attempt = next_sequence(), job.attempts + 1
  redis.call('HSET', job_key(job.id), 'fence', fence, 'attempts', attempt, 'token', token,
    'started', job.started or now, 'story', with_step(job.story, 'claim', attempt, worker))
  redis.call('HDEL', job_key(job.id), 'aside', 'parked', 'slot', 'hint', 'capped')
  if job.hint then redis.call('ZREM', displaced_key(job.agenda), job.id) end
  if job.id ~= id then redis.call('HSET', job_key(id), 'served', token .. ' ' .. job.id) end
  if job.state == 'queued' then set_job_state(job.id, job.tenant, 'queued', 'running') end
  count_begun(job.tenant)
  if (limits.most_running_per_user or most_running_per_user) > 0 then
    redis.call('SADD', running_key(job.lane), job.id)
    redis.call('PEXPIRE', running_key(job.lane), retention_ms)
  end
  local again = redis.call('EXISTS', events_key(job.id)) == 1
  emit(job.id, fence .. '-0', 'type', again and 'restart' or 'started', 'attempt', attempt)
  if job.capped and not owner_at_cap(job, limits) then
    for _, owner in ipairs({ ':' .. job.tenant, job.lane }) do
      if redis.call('ZSCORE', AT_CAP, owner) then let_in(owner) end
    end
  end
  return fence, attempt
end

-- Returns the job that a hint is for: the one it names, unless it stands for another.
local function job_of_hint(named)
  if not named.stands_for or tonumber(named.version) > known_version then return named end
  redis.call('HDEL', job_key(id), 'stands_for')
  local other = read(named.stands_for)
  return other.state == 'queued' and other.hint == id and other or named
end

local first = read(id)
if not first.state then return answer('gone') end
if first.served and string.sub(first.served, 1, #token + 1) == token .. ' ' then
  local served = read(string.sub(first.served, #token + 2))
  if served.state == 'running' and served.token == token then
    return granted(served, served.fence, tonumber(served.attempts))
  end
end

local job = job_of_hint(first)
local agenda = job.agenda
if tonumber(job.version) > known_version then
  local leased = tonumber(redis.call('ZSCORE', place_key('leased', agenda), job.id) or 0)
  if is_open(job.id) and leased <= now then hold(agenda, job.id, job.version) end
  return answer('held')
end
if job.state == 'running' then
  if job.token == token then return granted(job, job.fence, tonumber(job.attempts)) end
  local leased = tonumber(redis.call('ZSCORE', place_key('leased', agenda), job.id) or 0)
  if leased > now then return answer('taken') end
elseif job.state ~= 'queued' then
  return answer('ended')
end
if tonumber(job.deadline) <= now then
  end_job(job.id, 'expired', 'deadline', retention_ms, stream_ms)
  return answer('ended')
end
if tonumber(job.attempts) >= max_attempts then
  end_job(job.id, 'failed', 'crashed_too_often', failed_ms, stream_ms)
  return answer('ended')
end
local limits = tenant_limits(job.tenant) or {}
if job.state == 'running' then
  lease(agenda, job.id, lease_ms, ahead)
  return granted(job, begin_attempt(job, limits))
end
if set_aside(job.id, agenda, job.conversation, job.sequence) then return answer('behind') end
if is_parked(job) then
  if leave_share_queue(agenda, job.id, job.tenant) then leave_shares(agenda, job.tenant) end
  return answer('parked')
end

local named, owner = job, owner_at_cap(job, limits)
if owner then
  if not ahead then take_up(agenda, job.id) end
  wait_for_cap(job, owner)
  named = nil
end
local chosen, its_limits, next_at, contended = fairest(agenda, named, limits)
if not chosen then return answer('capped') end
count_share(chosen, its_limits, next_at, contended)
local exchanged = named and chosen.id ~= named.id
if exchanged then exchange_hints(named, chosen) end
lease(agenda, chosen.id, lease_ms, ahead or chosen.id ~= job.id)
return granted(chosen, begin_attempt(chosen, its_limits))
