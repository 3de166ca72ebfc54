-- Accept a job: its record, its place in the lane, its idempotency key and its hint, in one step.
-- One command can submit many jobs (batched.lua).
---@param id string                job
---@param lane string
---@param tenant string
---@param version integer          version of the record
---@param known_version integer    newest version of records that the caller knows
---@param body string              the request, JSON
---@param fingerprint string       hash of the body
---@param ttl_ms integer           the job expires after this time
---@param agenda string
---@param turn string              first state of its turn: awaited | none
---@param max_open integer         most jobs that may be open in this shard
---@param caps string              most open jobs and bytes of a tenant, a user and a conversation, and
--   most jobs of a tenant with the priority `high`; seven numbers, 0 for no cap
---@param budgets string          most that the tenant and the user may spend, and the period: see `over_budget`
---@param idempotency string       hash of the idempotency key, or ''
---@param idempotency_ms integer   lifetime of that key
---@param conversation string      conversation it belongs to, or ''
---@param when_busy string         if that has open jobs: enqueue | reject | interrupt | merge
---@param max_message_bytes integer  most bytes of a message that others were joined to, as JSON
---@param retention_ms integer     of jobs that are interrupted
---@param stream_ms integer        retention of their streams
---@param max_turns integer        most turns that a conversation keeps: what they said is kept
---@param conversation_ms integer  lifetime of a conversation
---@param replay_of string         the failed job that this one replays, or ''
---@param run string               the run that replays it, or ''
---@param trace string             trace context of whoever submits it, or ''
-- Answers status, job id. The status is new | joined (to that job) | same | reused | busy | more (some of
--   the jobs that it interrupts are ended, call again) | broke, with whose budget is spent and until when
--   | full, with whose cap in place of the id | blocked,
--   with whom an operator blocks, tenant or user, in place of the id; for a replay also
--   gone | erased (or about to be) | refused (the failed job is no longer a dead letter).
local conversation = conversation ~= '' and conversation or nil
local replayed = replay_of ~= ''

if redis.call('EXISTS', job_key(id)) == 1 then return answer('same', id) end
if when_busy == 'merge' then        -- a message that was joined has left its id like a key
  local joined = redis.call('HGET', idempotency_key(id), 'job')
  if joined then return answer('same', joined) end
end
if conversation or replayed then flush_writes() end
local created = now
if replayed then
  local failed = redis.call('HMGET', job_key(replay_of), 'state', 'body', 'created', 'replayed_as', 'run',
    'discarded', 'trace')
  if not failed[1] then return answer('gone', id) end
  if newer_version(replay_of, known_version) then return answer('refused', id) end
  if failed[4] then return answer(failed[5] == run and 'same' or 'refused', failed[4]) end
  if failed[1] ~= 'failed' or failed[6] then return answer('refused', id) end
  if not failed[2] or is_being_erased(lane) then return answer('erased', id) end
  created, trace = failed[3], failed[7] or ''
end
if idempotency ~= '' then
  local known = redis.call('HMGET', idempotency_key(idempotency), 'job', 'fingerprint')
  if known[1] then return answer(known[2] == fingerprint and 'same' or 'reused', known[1]) end
end

local _, blocked = first_order({ 'block :' .. tenant, 'block ' .. lane })
if blocked and not replayed then
  return answer('blocked', blocked == 'block ' .. lane and 'user' or 'tenant')
end

local broke, ends = over_budget(tenant, lane, budgets, 1)
if broke and not replayed then return answer('broke', broke .. ' ' .. ends) end

local CAPPED = { 'tenant', 'user', 'conversation' }
local owners = owners_of(lane, tenant, conversation)
-- What an operator ordered for the tenant counts, in place of the setting.
local ordered, limits = tenant_limits(tenant), read_caps(caps)
if ordered then limits = { ordered.most_open or limits[1], ordered.most_bytes or limits[2], unpack(limits, 3) } end
local function cap_name(i, what)
  local order = i == 1 and ordered and ordered[what == 'jobs' and 'most_open' or 'most_bytes']
  return (order and 'ordered' or CAPPED[i]) .. '_' .. what
end

local function whose_bytes(counts, added)
  for i = #owners, 1, -1 do
    local most = limits[2 * i]
    if most > 0 and counts[i][2] + added > most then return cap_name(i, 'bytes') end
  end
end

local function whose_cap(counts, interrupts)
  if agenda == HIGH and limits[7] > 0 and counts[1][3] >= limits[7] then return 'tenant_high' end
  if interrupts then return end     -- it ends at least as many as it begins
  for i = #owners, 1, -1 do
    local jobs, bytes = counts[i][1], counts[i][2]
    local most_jobs, most_bytes = limits[2 * i - 1], limits[2 * i]
    if most_jobs > 0 and jobs >= most_jobs then return cap_name(i, 'jobs') end
    if most_bytes > 0 and bytes + #body > most_bytes then return cap_name(i, 'bytes') end
  end
  if count_open() >= max_open then return 'shard_jobs' end
end

-- Returns the body of a job with this message behind its own, if all else of the two is the same.
local function with_this_message(other)
  local from, to = message_in(other)
  local own_from, own_to = message_in(body)
  local function rest(text, start)
    return (string.gsub(string.sub(text, start), ',"when_busy":"%a+"}$', '}'))
  end
  if not from or string.sub(other, 1, from - 1) ~= string.sub(body, 1, own_from - 1) then return end
  if rest(other, to + 1) ~= rest(body, own_to + 1) then return end
  local message = string.sub(other, from, to) .. '\\n' .. string.sub(body, own_from, own_to)
  if #message > max_message_bytes then return end
  return string.sub(other, 1, from - 1) .. message .. string.sub(other, to + 1)
end

-- Returns true while nothing of the reply to an open job can have been read.
local function has_no_text(other, state)
  if state == 'queued' then return true end
  local last = redis.call('XREVRANGE', events_key(other), '+', '-', 'COUNT', 1)[1]
  return last and last[2][2] ~= 'delta'
end

-- Takes a job from the worker that runs it, which is told the fence that it had: another attempt, even of
-- the same worker, may begin at once. An attempt whose lease has run out was lost, and stays counted.
local function begin_anew(other, job)
  if tonumber(redis.call('ZSCORE', place_key('leased', job[3]), other) or 0) <= now then
    return take_back_job(job[3], other, tenant)
  end
  set_job_state(other, tenant, 'running', 'queued')
  watch_attempt(other, other .. ' ' .. job[4])
  redis.call('HDEL', job_key(other), 'token')
  redis.call('HINCRBY', job_key(other), 'attempts', -1)
  redis.call('PUBLISH', FENCED, other .. ' ' .. job[4])
  hint_job(job[3], other, tenant)
end

-- Keeps the trace context of a message that is joined, beside that of the job; of many, the first.
local MOST_TRACES = 2000            -- characters
local function keep_trace(other, joined)
  local traces = (joined and joined .. '\n' or '') .. trace
  if trace ~= '' and #traces <= MOST_TRACES then redis.call('HSET', job_key(other), 'joined', traces) end
end

-- Joins this message to the newest open job of its conversation, if the reply to that has not begun.
-- Returns 'joined' and that job, or 'full' and whose cap; nothing if the message needs a job of its own.
local function join(counts)
  local other = redis.call('ZREVRANGE', conversation_queue_key(conversation), 0, 0)[1]
  if not is_open(other) or newer_version(other, known_version) then return end
  local job = redis.call('HMGET', job_key(other), 'state', 'body', 'agenda', 'fence', 'version',
    'idempotency', 'joined')
  local joined = has_no_text(other, job[1]) and with_this_message(job[2])
  if not joined then return end
  local added = #joined - #job[2]
  local full = whose_bytes(counts, added)
  if full then return 'full', full end
  for _, key in ipairs({ id, idempotency }) do
    if key ~= '' then
      redis.call('HSET', idempotency_key(key), 'job', other, 'fingerprint', fingerprint)
      redis.call('PEXPIRE', idempotency_key(key), idempotency_ms)
    end
  end
  local known = (job[6] and job[6] .. ' ' or '') .. id .. (idempotency ~= '' and ' ' .. idempotency or '')
  redis.call('HSET', job_key(other), 'body', joined, 'idempotency', known,
    'version', math.max(job[5], version))
  keep_trace(other, job[7])
  add_step(other, 'join', id)
  for _, count in ipairs(counts) do count[2] = count[2] + added end
  write_open_counts(owners, counts)
  if job[1] == 'running' then begin_anew(other, job) end
  return 'joined', other
end

local first = conversation and when_busy ~= 'enqueue' and first_in_conversation(conversation, 'inf')
local counted = open_counts_of(owners)
if first and when_busy == 'merge' then
  local status, about = join(counted)
  if status then return answer(status, about) end
end
local full = whose_cap(counted, first and when_busy == 'interrupt')
if full then return answer('full', full) end
if first and when_busy == 'reject' then return answer('busy', id) end
if first and when_busy == 'interrupt' then
  local queue = conversation_queue_key(conversation)
  if interrupted == MAX_INTERRUPTED then return answer('more', id) end
  local others = redis.call('ZRANGE', queue, 0, MAX_INTERRUPTED - interrupted - 1)
  for _, other in ipairs(others) do
    if is_open(other) and newer_version(other, known_version) then return answer('busy', id) end
  end
  -- All leave the queue first: otherwise ending one would hint the next, which is ended too.
  redis.call('ZREM', queue, unpack(others))
  for _, other in ipairs(others) do
    if is_open(other) then
      keep_what_was_said(other, max_turns, conversation_ms)
      stop_job(other, 'interrupted', retention_ms, stream_ms)
    end
    interrupted = interrupted + 1
  end
  if redis.call('EXISTS', queue) == 1 then return answer('more', id) end
  flush_writes()                    -- the counts that were read have changed
  counted = open_counts_of(owners)
end

local sequence, deadline = next_batch_sequence(), now + ttl_ms
redis.call('HSET', job_key(id), 'version', version, 'state', 'queued', 'turn', turn, 'tenant', tenant,
  'lane', lane, 'agenda', agenda, 'body', body, 'sequence', sequence, 'created', created,
  'deadline', deadline, 'attempts', 0)
write_later('ZADD', OPEN, deadline, id)
open = (open or count_open()) + 1
add_to_counts(counted, 1, #body, agenda)
write_open_counts(owners, counted)
if conversation then
  redis.call('HSET', job_key(id), 'conversation', conversation)
  redis.call('ZADD', conversation_queue_key(conversation), sequence, id)
end
count_later('job:queued:' .. tenant)
count_later('turn:' .. turn .. ':' .. tenant)
if turn == 'awaited' then
  redis.call('ZADD', lane_key(lane), sequence, id)
else
  list_job(lane, id, sequence, ttl_ms + retention_ms)
end
if idempotency ~= '' then
  redis.call('HSET', idempotency_key(idempotency), 'job', id, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', idempotency_key(idempotency), idempotency_ms)
  redis.call('HSET', job_key(id), 'idempotency', idempotency)
end
if trace ~= '' then redis.call('HSET', job_key(id), 'trace', trace) end
if replayed then
  redis.call('HSET', job_key(id), 'replay_of', replay_of, 'queued', now)
  redis.call('HSET', job_key(replay_of), 'replayed_as', id, 'run', run)
  redis.call('ZREM', FAILED_JOBS, replay_of)
  add_step(replay_of, 'replay', id)
end
if not set_aside(id, agenda, conversation, sequence) then
  write_later('ZADD', place_key('hinted', agenda), now, id)  -- a new job is in no other place
  write_later('ZADD', share_queue_key(agenda, tenant), sequence, id)
  enter_shares_once(agenda, tenant)
  push_hint(agenda, id, sequence, write_later)
end
return answer('new', id)
