-- What every script shares; it is loaded in front of each of them.
--   KEYS[1]  root of all keys of one shard, e.g. afterword:{00}
--   ARGV[1]  prefix of the queues in this Redis, or '-' if the broker is elsewhere: then the
--            caller sends the hints (agenda, id, ...) that stand behind every answer
-- Time is Redis' own, in ms. Sequence numbers, fences and event ids come from one counter.

local root, broker = KEYS[1], ARGV[1]

local OPEN = root .. ':open'        -- ZSET   job id -> deadline, of all queued and running jobs
local DEAD = root .. ':dead'        -- ZSET   job id -> when its turn was buried
local COUNTS = root .. ':counts'    -- HASH   'job|turn:<state>:<tenant>' -> how many
local FENCES = root .. ':fences'    -- HASH   lane id -> fence of the writer that holds it
local WORKERS = root .. ':workers'  -- ZSET   '<queue> <worker>' -> when it last swept
local SEQUENCE = root .. ':seq'     -- STRING the counter
local LANES = 'memories.0'          -- the agenda of lanes

local function job_key(id) return root .. ':job:' .. id end        -- HASH
local function events_key(id) return root .. ':events:' .. id end  -- STREAM
local function lane_key(id) return root .. ':lane:' .. id end      -- ZSET job id -> sequence
local function talk_key(id) return root .. ':talk:' .. id end      -- LIST of JSON, one a turn

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

local function queue_key(agenda)
  local queue, step = string.match(agenda, '^(%a+)%.(%d)$')
  if step == '0' then return broker .. queue, queue, step end
  return broker .. queue .. '\6\22' .. step, queue, step
end

-- The message that Celery's worker expects, as in shared/hints.py: ids need no escaping.
local function envelope(queue, step, id)
  local task = queue == 'memories' and 'afterword.write' or 'afterword.run'
  local tag = id .. '.' .. next_number()
  return '{"body":"[[\\"' .. id .. '\\"],{},{}]","content-encoding":"utf-8",'
    .. '"content-type":"application/json","headers":{"lang":"py","task":"' .. task
    .. '","id":"' .. tag .. '","root_id":"' .. tag .. '","argsrepr":"","kwargsrepr":"",'
    .. '"ignore_result":true},"properties":{"correlation_id":"' .. tag
    .. '","delivery_mode":2,"delivery_info":{"exchange":"","routing_key":"' .. queue
    .. '"},"priority":' .. step .. ',"delivery_tag":"' .. tag .. '"}}'
end

local unsent = {}
local function hint(agenda, id)
  put('hinted', agenda, id, now)
  if broker == '-' then
    unsent[#unsent + 1] = agenda
    unsent[#unsent + 1] = id
    return
  end
  local list, queue, step = queue_key(agenda)
  redis.call('LPUSH', list, envelope(queue, step, id))
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

-- Event ids are '<fence>-<n>': a delta sent twice is refused by the stream itself.
local function emit(id, event, ...)
  redis.call('XADD', events_key(id), event, ...)
  redis.call('PUBLISH', root .. ':wake:' .. id, '')
end

local function retain(id, retention_ms) redis.call('PEXPIRE', job_key(id), retention_ms) end

-- The common end of a job: nothing of it is open, leased or hinted any more.
local function close_job(id, agenda, stream_ms)
  strike(agenda, id)
  redis.call('ZREM', OPEN, id)
  redis.call('PEXPIRE', events_key(id), stream_ms)
end

-- An end without a reply: its turn will never come, so its lane does not wait for it (I4).
local function end_job(id, state, code, retention_ms, stream_ms)
  local job = redis.call('HMGET', job_key(id), 'state', 'tenant', 'agenda', 'lane', 'turn', 'attempts')
  redis.call('HSET', job_key(id), 'code', code, 'ended', now)
  set_job(id, job[2], job[1], state)
  emit(id, next_number() .. '-*', 'type', 'failed', 'state', state, 'code', code, 'attempt', job[6])
  if job[5] == 'awaited' then
    set_turn(id, job[2], 'awaited', 'none')
    redis.call('ZREM', lane_key(job[4]), id)
    if redis.call('EXISTS', lane_key(job[4])) == 1 then nudge(job[4]) end
  end
  close_job(id, job[3], stream_ms)
  retain(id, retention_ms)
end

-- True while this attempt is the one that counts.
local function holds_job(id, fence)
  local job = redis.call('HMGET', job_key(id), 'state', 'fence')
  return job[1] == 'running' and job[2] == fence
end

local function holds_lane(lane, fence) return redis.call('HGET', FENCES, lane) == fence end

-- Every script ends with its answer and the hints that the caller must send.
local function answer(...) return { { ... }, unsent } end
