-- What every script shares; it is loaded in front of each of them.
--   KEYS[1]  root of all keys of one shard, e.g. afterword:{00}
--   ARGV[1]  prefix of the queues in this Redis, or '-' if the broker is elsewhere: then the
--            caller sends the hints (agenda, id, ...) that stand behind every answer
-- Time is Redis' own, in ms. Sequence numbers, fences and event ids come from one counter.

local root, broker = KEYS[1], ARGV[1]

local OPEN = root .. ':open'        -- ZSET   job id -> deadline, of all queued and running jobs
local DEAD = root .. ':dead'        -- ZSET   job id -> when its turn was buried
local FAILED = root .. ':failed'    -- ZSET   job id -> when it failed, unless replayed or discarded
local COUNTS = root .. ':counts'    -- HASH   'job|turn:<state>:<tenant>' -> how many
local FENCES = root .. ':fences'    -- HASH   lane id -> fence of the writer that holds it
local REPAIRS = root .. ':repairs'  -- ZSET   job id -> when to look whether its turn is stored twice
local ERASURES = root .. ':erasures' -- ZSET  lane id -> when its erasure was asked for
local WORKERS = root .. ':workers'  -- ZSET   '<queue> <worker>' -> when it last swept
local QUARANTINE = root .. ':quarantine' -- STREAM of notes of messages that were no hints
local NEWER = root .. ':newer'      -- STRING the newest version that records were held for
local SEQUENCE = root .. ':seq'     -- STRING the counter
local LANES = 'memories.0'          -- the agenda of lanes

local function job_key(id) return root .. ':job:' .. id end        -- HASH
local function events_key(id) return root .. ':events:' .. id end  -- STREAM
local function lane_key(id) return root .. ':lane:' .. id end      -- ZSET job id -> sequence
local function erasure_key(id) return root .. ':erasure:' .. id end -- HASH of a lane
local function behind_key(tenant) return root .. ':behind:' .. tenant end -- ZSET lane id -> oldest turn
local function talk_key(id) return root .. ':talk:' .. id end      -- LIST of JSON, one a turn
local function usage_key(id) return root .. ':usage:' .. id end    -- HASH of a lane: sums of its replies
local function tenant_usage_key(tenant) return root .. ':tenant-usage:' .. tenant end -- HASH
local function line_key(id) return root .. ':line:' .. id end      -- ZSET job id -> sequence, of a talk

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = now_ms()

local function next_number() return redis.call('INCR', SEQUENCE) end

-- An agenda ('replies.0', 'replies.3', 'replies.6', 'memories.0') holds each id in one of three
-- places: hinted (since), waiting (until), leased (until). Its mark is the newest hint taken up:
-- a queue is first in, first out, so an older hint that was not taken up is lost.
local PLACES = { 'hinted', 'waiting', 'leased' }
local function place(name, agenda) return root .. ':' .. name .. ':' .. agenda end

-- All shards hint through the same queue, so its mark is theirs together, if one Redis holds both.
local function mark_key(agenda)
  if broker == '-' then return place('mark', agenda) end
  return broker .. 'afterword:mark:' .. agenda
end

local function put(name, agenda, id, score)
  for _, other in ipairs(PLACES) do
    if other ~= name then redis.call('ZREM', place(other, agenda), id) end
  end
  redis.call('ZADD', place(name, agenda), score, id)
end

local function strike(agenda, id)
  for _, name in ipairs(PLACES) do redis.call('ZREM', place(name, agenda), id) end
end

local function placed(agenda, id)
  for _, name in ipairs(PLACES) do
    if redis.call('ZSCORE', place(name, agenda), id) then return true end
  end
  return false
end

-- A record of a newer version than ours is held, never guessed: it is left as it is and looked at
-- again in a while, by someone who knows it, if there is one (I13). ZSET held:<agenda>: id -> when.
local HOLD, LISTED = 60000, 300000  -- ms
local function newer(id, known)
  local version = redis.call('HGET', job_key(id), 'v')
  return version and tonumber(version) > tonumber(known) and version
end

local function list_held(agenda, id, version)
  redis.call('ZADD', place('held', agenda), now, id)
  local newest = math.max(tonumber(version), tonumber(redis.call('GET', NEWER) or 0))
  redis.call('SET', NEWER, newest, 'PX', LISTED)
end

local function hold(agenda, id, version)
  put('waiting', agenda, id, now + HOLD)
  list_held(agenda, id, version)
end

local function queue_key(agenda)
  local queue, step = string.match(agenda, '^(%a+)%.(%d)$')
  if step == '0' then return broker .. queue, queue, step end
  return broker .. queue .. '\6\22' .. step, queue, step
end

-- The message that Celery's worker expects, as in shared/afterword/shared/hints.py: ids need no escaping.
local function envelope(queue, step, id, number)
  local task = queue == 'memories' and 'afterword.write' or 'afterword.run'
  local tag = id .. '.' .. number
  return '{"body":"[[\\"' .. id .. '\\"],{},{}]","content-type":"application/json",'
    .. '"headers":{"task":"' .. task .. '","id":"' .. tag
    .. '"},"properties":{"delivery_info":{"exchange":"","routing_key":"' .. queue
    .. '"},"priority":' .. step .. ',"delivery_tag":"' .. tag .. '"}}'
end

local unsent = {}
local function push(agenda, id, number, write)
  if broker == '-' then
    unsent[#unsent + 1] = agenda
    unsent[#unsent + 1] = id
    return
  end
  local list, queue, step = queue_key(agenda)
  write('LPUSH', list, envelope(queue, step, id, number))
end

local function hint(agenda, id)
  put('hinted', agenda, id, now)
  push(agenda, id, next_number(), redis.call)
end

local function lease(agenda, id, lease_ms)
  local hinted = tonumber(redis.call('ZSCORE', place('hinted', agenda), id) or 0)
  local mark = mark_key(agenda)
  if hinted > tonumber(redis.call('GET', mark) or 0) then redis.call('SET', mark, hinted) end
  put('leased', agenda, id, now + lease_ms)
end

-- A lane that nobody holds, awaits or was told of is told of now.
local function nudge(lane)
  if not placed(LANES, lane) then hint(LANES, lane) end
end

local function tally(what, tenant, from, to)
  if from then redis.call('HINCRBY', COUNTS, what .. ':' .. from .. ':' .. tenant, -1) end
  redis.call('HINCRBY', COUNTS, what .. ':' .. to .. ':' .. tenant, 1)
end

local function set_job(id, tenant, from, to)
  redis.call('HSET', job_key(id), 'state', to)
  tally('job', tenant, from, to)
end

local function set_turn(id, tenant, from, to)
  redis.call('HSET', job_key(id), 'turn', to)
  tally('turn', tenant, from, to)
end

-- A turn is not to be stored any more; its lane is behind by the oldest that still is.
local MOST_AHEAD = 50
local function leave_lane(lane, id, tenant)
  redis.call('ZREM', lane_key(lane), id)
  for _, other in ipairs(redis.call('ZRANGE', lane_key(lane), 0, MOST_AHEAD - 1)) do
    local turn = redis.call('HMGET', job_key(other), 'turn', 'created')
    if turn[1] == 'pending' or turn[1] == 'writing' then
      return redis.call('ZADD', behind_key(tenant), turn[2], lane)
    end
  end
  redis.call('ZREM', behind_key(tenant), lane)
end

-- Turns that go into one add are a batch, named by the oldest: from its first begin on, all that is
-- known of their storing stands in the record of that one, its turns in 'batch'.
local function batch_of(id)
  local batch = redis.call('HGET', job_key(id), 'batch')
  if not batch then return { id } end
  local ids = {}
  for each in string.gmatch(batch, '%S+') do ids[#ids + 1] = each end
  return ids
end

local function enter_lane(lane, id, tenant, seq, created)
  redis.call('ZADD', lane_key(lane), seq, id)
  redis.call('ZADD', behind_key(tenant), 'LT', created, lane)
end

-- Event ids are '<fence>-<n>': a delta sent twice is refused by the stream itself.
-- Who follows the job is told the type: some wait for the end alone.
local function emit(id, event, name, kind, ...)
  redis.call('XADD', events_key(id), event, name, kind, ...)
  redis.call('PUBLISH', root .. ':wake:' .. id, kind)
end

local function retain(id, retention_ms) redis.call('PEXPIRE', job_key(id), retention_ms) end

-- The open jobs of a conversation stand in its line and are answered in that order. Those behind
-- the first wait aside: they are told when it has ended, and look for themselves now and then, so
-- that a line that was lost holds up nobody.
local ASIDE = 300000                -- ms

-- A state that only a newer version knows is no end.
local ENDED = { succeeded = 1, failed = 1, cancelled = 1, expired = 1 }
local function is_open(id)
  local state = redis.call('HGET', job_key(id), 'state')
  return state and not ENDED[state]
end

-- The first in line before a sequence number; a record that has ended or is gone is passed over.
local function first_in_line(talk, before)
  while true do
    local first = redis.call('ZRANGEBYSCORE', line_key(talk), '-inf', '(' .. before, 'LIMIT', 0, 1)[1]
    if not first or is_open(first) then return first end
    redis.call('ZREM', line_key(talk), first)
  end
end

-- True if a queued job has to wait for another of its conversation; then it stands aside.
local function steps_aside(id, agenda, talk, seq)
  if not talk or not first_in_line(talk, seq) then return false end
  redis.call('HSET', job_key(id), 'aside', 1)
  put('waiting', agenda, id, now + ASIDE)
  return true
end

local function leave_line(id, talk)
  redis.call('ZREM', line_key(talk), id)
  local first = first_in_line(talk, 'inf')
  if not first then return end
  local job = redis.call('HMGET', job_key(first), 'aside', 'agenda')
  if not job[1] then return end
  redis.call('HDEL', job_key(first), 'aside')
  hint(job[2], first)
end

-- The common end of a job: nothing of it is open, leased or hinted any more.
local function close_job(id, agenda, talk, stream_ms)
  strike(agenda, id)
  if talk then leave_line(id, talk) end
  redis.call('ZREM', OPEN, id)
  redis.call('PEXPIRE', events_key(id), stream_ms)
end

-- An end without a reply: its turn will never come, so its lane does not wait for it (I4).
local function end_job(id, state, code, retention_ms, stream_ms)
  local job = redis.call('HMGET', job_key(id), 'state', 'tenant', 'agenda', 'lane', 'turn', 'attempts',
    'talk')
  redis.call('HSET', job_key(id), 'code', code, 'ended', now)
  set_job(id, job[2], job[1], state)
  emit(id, next_number() .. '-*', 'type', 'failed', 'state', state, 'code', code, 'attempt', job[6])
  if job[5] == 'awaited' then
    set_turn(id, job[2], 'awaited', 'none')
    redis.call('ZREM', lane_key(job[4]), id)
    if redis.call('EXISTS', lane_key(job[4])) == 1 then nudge(job[4]) end
  end
  close_job(id, job[3], job[7], stream_ms)
  retain(id, retention_ms)
  if state == 'failed' then
    redis.call('ZREMRANGEBYSCORE', FAILED, '-inf', now - retention_ms)
    redis.call('ZADD', FAILED, now, id)
  end
end

-- The same for one that somebody may be running: they are told to stop at once.
local function stop_job(id, code, retention_ms, stream_ms)
  local running = redis.call('HGET', job_key(id), 'state') == 'running'
  end_job(id, 'cancelled', code, retention_ms, stream_ms)
  if running then redis.call('PUBLISH', root .. ':fenced', id) end
end

-- True while this attempt is the one that counts.
local function holds_job(id, fence)
  local job = redis.call('HMGET', job_key(id), 'state', 'fence')
  return job[1] == 'running' and job[2] == fence
end

local function holds_lane(lane, fence) return redis.call('HGET', FENCES, lane) == fence end

-- A gate stands before a provider, for the whole fleet in one place. Its HASH is there while it is
-- not open: 'until' it is shut, 'opened' since it opens slowly, 'next' time for someone to come back.
local GATES = root .. ':gates'      -- SET of the gates that are not open
local NEWS = root .. ':gate-news'   -- CHANNEL '<shut|doubted> <gate>'
local GATE_LIFE = 86400000          -- ms; a gate that nobody asks at is forgotten
local MOST_FAILURES, DOUBT = 5, 3   -- without a success in between
local OCTAVES, FASTEST = 10, 8      -- of a slow start; of those who come back
local function gate_key(name) return root .. ':gate:' .. name end              -- HASH
local function failures_key(name) return root .. ':gate-failures:' .. name end -- SET of tokens

local function open_gate(name)
  redis.call('DEL', gate_key(name), failures_key(name))
  redis.call('SREM', GATES, name)
end

local function end_slow_start(name, octave)
  local opened = redis.call('HGET', gate_key(name), 'opened')
  if opened and now - opened >= OCTAVES * octave then open_gate(name) end
end

-- Each who is refused gets a time of its own to come back, one line for all: from when the gate
-- may open on, 1, 2, 4 ... 256 an octave. The line goes on where it ended, however often the gate
-- shuts anew, so that a hundred thousand who wait cost no more than 256 questions an octave.
local function comeback(name, octave)
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'next')
  local base = tonumber(gate[2] or gate[1])
  local slot = math.max(tonumber(gate[3] or 0), base, now + octave / 4)
  local pace = 2 ^ math.min((slot - base) / octave, FASTEST)
  redis.call('HSET', gate_key(name), 'next', slot + octave / pace)
  return math.ceil(slot - now)
end

local function is_being_erased(lane)
  local state = redis.call('HGET', erasure_key(lane), 'state')
  return state and state ~= 'erased'
end

-- A run is one replay of many letters, as an operator pressed it; it stands on the first shard,
-- beside the audit of what operators did.
local RUNS = root .. ':runs'        -- ZSET   run -> when it began
local AUDIT = root .. ':audit'      -- STREAM of deeds: who, what, of which run, more as JSON
local MOST_DEEDS = 100000
local function run_key(run) return root .. ':run:' .. run end                 -- HASH
local function todo_key(run) return root .. ':run-todo:' .. run end           -- ZSET letter -> place
local function outcomes_key(run) return root .. ':run-outcomes:' .. run end   -- HASH job id -> outcome

local function drives(run, token) return redis.call('HGET', run_key(run), 'driver') == token end

local function keep_run(run, lifetime_ms)
  for _, key in ipairs({ run_key(run), todo_key(run), outcomes_key(run) }) do
    redis.call('PEXPIRE', key, lifetime_ms)
  end
end

local function note_audit_entry(who, what, run, told)
  redis.call('XADD', AUDIT, 'MAXLEN', '~', MOST_DEEDS, '*', 'by', who, 'what', what, 'run', run,
    'told', told)
end

local function end_run(run, state, why, who)
  redis.call('HSET', run_key(run), 'state', state, 'reason', why)
  local told = { reason = why }
  local fields = redis.call('HGETALL', run_key(run))
  for i = 1, #fields, 2 do
    local outcome = string.match(fields[i], '^n:(.+)$')
    if outcome and fields[i + 1] ~= '0' then told[outcome] = tonumber(fields[i + 1]) end
  end
  note_audit_entry(who, state, run, cjson.encode(told))
end

-- Every script ends with its answer and the hints that the caller must send.
local function answer(...) return { { ... }, unsent } end
