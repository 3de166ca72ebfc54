-- The part that all scripts share. Python puts in front of each script what it uses of this file.
--   KEYS[1]  root of all keys of one shard, e.g. afterword:{00}
--   ARGV[1]  prefix of the queues in this Redis, or '-' if the broker is another server; then the
--            caller sends the hints ({agenda, id}, ...) that every reply carries besides its answer
-- Times are read from Redis' clock, in milliseconds. Sequence numbers, fences and event ids come
-- from one counter per shard. Every key is spelled here and in `afterword.shared.names.Keys`.

local root, broker = KEYS[1], ARGV[1]

local OPEN = root .. ':open'        -- ZSET   job id -> deadline, of all queued and running jobs
local DEAD_TURNS = root .. ':dead-turns'   -- ZSET   job id -> when its turn was buried
local FAILED_JOBS = root .. ':failed-jobs' -- ZSET   job id -> when it failed, unless replayed or discarded
local OPEN_COUNTS = root .. ':open-counts' -- HASH conversation, lane or ':'tenant -> see `owners_of`
local COUNTS = root .. ':counts'    -- HASH   '<what>:<state>:<tenant>' -> how many; see `Accounts`
local FENCES = root .. ':fences'    -- HASH   lane id -> fence of the writer that holds it
local DUPLICATE_CHECKS = root .. ':duplicate-checks' -- ZSET  job id -> when to look for duplicates in mem0
local LATE_COPIES = root .. ':late-copies' -- ZSET job id of a mended turn -> when to look for late copies
local LOST_ATTEMPTS = root .. ':lost-attempts' -- ZSET id of a job that ended before its last attempt told what it used, also '<id> <fence>' of an attempt that a joined message overtook -> when to count an estimate
local MEMORY_REQUESTS = root .. ':memory-requests' -- ZSET id of a request without an answer -> when it expires
local ORDERS = root .. ':orders'    -- HASH   '<what> <whom>' -> JSON: an operator's order, see `order_in`
local ORDER_ENDS = root .. ':order-ends' -- ZSET that name -> when the order ends, if it has an end
local ENDED_ORDERS = root .. ':ended-orders' -- ZSET id of an order -> when it ended; what waited is woken
local SLOTS = root .. ':slots'      -- HASH   id of an order that slows -> when its next job may be claimed
local ERASURES = root .. ':erasures' -- ZSET  lane id -> when its erasure was requested
local WORKERS = root .. ':workers'  -- ZSET   '<queue> <worker>' -> its last heartbeat
local WORKER_STATUS = root .. ':worker-status' -- HASH '<queue> <worker>' -> JSON: version, periodic tasks
local QUARANTINE = root .. ':quarantine' -- STREAM of notes on queue messages that were no hints
local QUARANTINED = root .. ':quarantined' -- HASH '<reason>' -> how many there ever were
local NEWER_VERSION = root .. ':newer-version' -- STRING the newest version that records were held for
local IDENTITY = root .. ':identity' -- HASH   layout, shards, records, name; on the first shard
local WITNESSES = root .. ':witnesses' -- ZSET machine -> the newest number that it saw
local MOST_WITNESSES = 1000
local PUT_BACK = root .. ':put-back' -- STRING the newest number of the older ledger that was put back
local SEQUENCE = root .. ':sequence' -- STRING the counter
local FENCED = root .. ':fenced'    -- CHANNEL job or lane ids whose running attempt was overtaken, also '<id> <fence>' of it
local AT_CAP = root .. ':at-cap'    -- ZSET lane or ':'tenant that runs all it may -> when to look again
local CAP_PARTS = root .. ':cap-parts' -- HASH tenant -> '<part> <cap> <number>': see `cap_part`
local LANES = 'memories.0'          -- the agenda of lanes
local REPLIES = { 'replies.0', 'replies.3', 'replies.6' } -- those of jobs

local function job_key(id) return root .. ':job:' .. id end        -- HASH
local function events_key(id) return root .. ':events:' .. id end  -- STREAM
local function wake_channel(id) return root .. ':wake:' .. id end  -- CHANNEL
local function idempotency_key(hash) return root .. ':idempotency:' .. hash end -- HASH
local function lane_key(id) return root .. ':lane:' .. id end      -- ZSET job id -> sequence
local function erasure_key(id) return root .. ':erasure:' .. id end -- HASH of a lane
local function behind_key(tenant) return root .. ':behind:' .. tenant end -- ZSET lane id -> oldest turn
local function conversation_key(id) return root .. ':conversation:' .. id end -- LIST of JSON, one a turn
local function conversation_queue_key(id) return root .. ':conversation-queue:' .. id end -- ZSET job id -> sequence
local function usage_key(id) return root .. ':usage:' .. id end    -- HASH of a lane: sums over its replies
local function memory_request_key(id) return root .. ':memory-request:' .. id end -- HASH
local function mending_key(id) return root .. ':mending:' .. id end -- STRING of a lane that a request waits for
local function given_key(id) return root .. ':given:' .. id end    -- STREAM of a lane: replies and the memories in them
local MESSAGE_BATCHES = root .. ':message-batches' -- ZSET name of a message batch -> when to look at it
local function message_batch_key(name) return root .. ':message-batch:' .. name end -- HASH
local function message_batch_turns_key(name) return root .. ':message-batch-turns:' .. name end -- SET of turns that wait for it
local MESSAGE_BATCH_LIFE = 30 * 86400000 -- ms; the provider forgets its results before that
local function migration_key(name) return root .. ':migration:' .. name end -- HASH: driver, until, progress
local MIGRATION_LIFE = 90 * 86400000 -- ms since its last step
local function user_jobs_key(id) return root .. ':user-jobs:' .. id end -- ZSET of a lane, see `list_job`: its newest jobs, by sequence
local function story_key(id) return root .. ':story:' .. id end    -- HASH of a job that has ended, see `keep_story`
local function imported_key(id) return root .. ':imported:' .. id end -- SET of a lane: keys of past turns
local function parked_key(order) return root .. ':parked:' .. order end -- ZSET '<agenda> <id>' -> until when
local function share_key(agenda) return root .. ':share:' .. agenda end -- ZSET tenant with queued jobs -> when it is next
local function share_clock_key(agenda) return root .. ':share-clock:' .. agenda end -- STRING virtual time
local function share_rest_key(agenda) return root .. ':share-rest:' .. agenda end -- ZSET tenant without queued jobs -> when it is next
local function share_queue_key(agenda, tenant) return root .. ':share-queue:' .. agenda .. ':' .. tenant end -- ZSET job id -> number
local function displaced_key(agenda) return root .. ':displaced:' .. agenda end -- ZSET job that waits at a hint of another one -> since when it is ready
local function begun_key(slot) return root .. ':begun:' .. slot end -- HASH tenant -> attempts that began in the ten minutes of that number
local function capped_key(owner) return root .. ':capped:' .. owner end -- ZSET of a lane or ':'tenant: job id -> sequence
local function running_key(lane) return root .. ':running:' .. lane end -- SET of running jobs
local function tenant_usage_key(tenant) return root .. ':tenant-usage:' .. tenant end -- HASH

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = now_ms()

local function next_sequence() return redis.call('INCR', SEQUENCE) end

-- An agenda ('replies.0', 'replies.3', 'replies.6', 'memories.0') holds each id in one of three
-- places: hinted (since), waiting (until), leased (until). Its mark is the newest hint taken up:
-- a queue is first in, first out, so an older hint that was not taken up is lost. One that was taken
-- ahead of older ones moves no mark.
local PLACES = { 'hinted', 'waiting', 'leased' }
local function place_key(place, agenda) return root .. ':' .. place .. ':' .. agenda end

-- All shards hint through the same queue. If one Redis holds both, they share one mark.
local function mark_key(agenda)
  if broker == '-' then return place_key('mark', agenda) end
  return broker .. 'mark:' .. agenda
end

local function move_to(place, agenda, id, score)
  for _, other in ipairs(PLACES) do
    if other ~= place then redis.call('ZREM', place_key(other, agenda), id) end
  end
  redis.call('ZADD', place_key(place, agenda), score, id)
end

local function remove_from_agenda(agenda, id)
  for _, place in ipairs(PLACES) do redis.call('ZREM', place_key(place, agenda), id) end
end

local function is_placed(agenda, id)
  for _, place in ipairs(PLACES) do
    if redis.call('ZSCORE', place_key(place, agenda), id) then return true end
  end
  return false
end

-- A record of a newer version than the caller's is held: it is left unchanged and looked at again
-- after a minute, by a worker that knows its version, if there is one (I13).
local HOLD, LISTED = 60000, 300000  -- ms
local function newer_version(id, known)
  local version = redis.call('HGET', job_key(id), 'version')
  return version and tonumber(version) > known and version
end

local function list_held(agenda, id, version)
  redis.call('ZADD', place_key('held', agenda), now, id)
  local newest = math.max(tonumber(version), tonumber(redis.call('GET', NEWER_VERSION) or 0))
  redis.call('SET', NEWER_VERSION, newest, 'PX', LISTED)
end

local function hold(agenda, id, version)
  move_to('waiting', agenda, id, now + HOLD)
  list_held(agenda, id, version)
end

local function queue_key(agenda)
  local queue, step = string.match(agenda, '^(%a+)%.(%d)$')
  if step == '0' then return broker .. queue, queue, step end
  return broker .. queue .. '\6\22' .. step, queue, step
end

-- The message that Celery's worker expects, see `afterword.shared.hints`: ids need no escaping.
local function hint_message(queue, step, id, number)
  local task = queue == 'memories' and 'afterword.write' or 'afterword.run'
  local tag = id .. '.' .. number
  return '{"body":"[[\\"' .. id .. '\\"],{},{}]","content-type":"application/json",'
    .. '"headers":{"task":"' .. task .. '","id":"' .. tag
    .. '"},"properties":{"delivery_info":{"exchange":"","routing_key":"' .. queue
    .. '"},"priority":' .. step .. ',"delivery_tag":"' .. tag .. '"}}'
end

local unsent = {}
local function push_hint(agenda, id, number, write)
  if broker == '-' then
    unsent[#unsent + 1] = { agenda, id }
    return
  end
  local list, queue, step = queue_key(agenda)
  write('LPUSH', list, hint_message(queue, step, id, number))
end

-- Sends a hint that is taken before all others.
local function push_ahead(agenda, id)
  if broker == '-' then
    unsent[#unsent + 1] = { agenda .. '^', id }
    return
  end
  local list, queue, step = queue_key(agenda)
  redis.call('RPUSH', list, hint_message(queue, step, id, next_sequence()))
end

local function hint(agenda, id)
  move_to('hinted', agenda, id, now)
  push_hint(agenda, id, next_sequence(), redis.call)
end

-- Moves the mark to the hint that stands for a job or a lane: it was taken up.
local function take_up(agenda, id)
  local hinted = tonumber(redis.call('ZSCORE', place_key('hinted', agenda), id) or 0)
  local mark = mark_key(agenda)
  if hinted > tonumber(redis.call('GET', mark) or 0) then redis.call('SET', mark, hinted) end
end

local function lease(agenda, id, lease_ms, ahead)
  if not ahead then take_up(agenda, id) end
  move_to('leased', agenda, id, now + lease_ms)
end

-- Tenants share the workers of an agenda: a hint wakes a worker for the tenant whose turn it is, whichever
-- job it names (start-time fair queueing). Virtual time passes by UNIT for each job of a tenant with the
-- weight 1. A tenant that comes begins at the virtual time of the job that was taken last, so it is next;
-- one that comes back too soon begins where it was. Each beginner moves the clock by 1, which keeps
-- those who come at the same time in their order.
local UNIT = 1000

-- The queue of a tenant begins with jobs whose own hint was used up for another tenant's.
local DISPLACED = 2 ^ 52

local function enter_shares(agenda, tenant)
  local shares = share_key(agenda)
  if redis.call('ZSCORE', shares, tenant) or redis.call('ZSCORE', AT_CAP, ':' .. tenant) then return end
  local begins = redis.call('INCR', share_clock_key(agenda))
  local rested = tonumber(redis.call('ZSCORE', share_rest_key(agenda), tenant) or 0)
  redis.call('ZADD', shares, math.max(begins, rested), tenant)
end

-- Takes a tenant out until it has a queued job again; if others were queued, it is known when it is next.
local function leave_shares(agenda, tenant, next_at)
  redis.call('ZREM', share_key(agenda), tenant)
  if not next_at then return end
  local clock = redis.call('GET', share_clock_key(agenda))
  local rest = share_rest_key(agenda)
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', rest, '-inf', clock, 'LIMIT', 0, 10)) do
    redis.call('ZREM', rest, other)
  end
  redis.call('ZADD', rest, next_at, tenant)
end

local function leave_share_queue(agenda, id, tenant)
  local queue = share_queue_key(agenda, tenant)
  redis.call('ZREM', queue, id)
  return redis.call('EXISTS', queue) == 0
end

local function hint_job(agenda, id, tenant)
  local number = next_sequence()
  move_to('hinted', agenda, id, now)
  if redis.call('HDEL', job_key(id), 'hint') == 1 then redis.call('ZREM', displaced_key(agenda), id) end
  redis.call('ZADD', share_queue_key(agenda, tenant), number, id)
  enter_shares(agenda, tenant)
  push_hint(agenda, id, number, redis.call)
end

-- What each tenant had of the workers lately, by which operators see who takes how much.
local BEGUN_SLOT, BEGUN_LIFE = 600000, 7200000 -- ms
local function count_begun(tenant)
  local key = begun_key(math.floor(now / BEGUN_SLOT))
  if redis.call('HINCRBY', key, tenant, 1) == 1 then redis.call('PEXPIRE', key, BEGUN_LIFE) end
end

-- A job whose tenant or user runs as many as it may waits without a hint. Whenever a job of theirs stops
-- running, the first of those that wait so is hinted. The sweep looks at them as well, in case
-- that a worker of an older version ended it, or that the cap was raised.
local LOOK_AGAIN = 60000            -- ms
local MOST_LOOKED_AT = 10            -- looked at, to find one that still waits

local function let_next_in(owner)
  local capped = capped_key(owner)
  for _ = 1, MOST_LOOKED_AT do
    local id = redis.call('ZPOPMIN', capped)[1]
    if not id then break end
    local job = redis.call('HMGET', job_key(id), 'state', 'agenda', 'tenant')
    if job[1] == 'queued' and redis.call('ZSCORE', place_key('waiting', job[2]), id) then
      hint_job(job[2], id, job[3])
      break
    end
  end
  if redis.call('EXISTS', capped) == 0 then redis.call('ZREM', AT_CAP, owner) end
end

-- Lets one more job of a tenant or a user run.
local function let_in(owner)
  let_next_in(owner)
  if string.sub(owner, 1, 1) ~= ':' then return end
  local tenant = string.sub(owner, 2)
  redis.call('ZREM', AT_CAP, owner)
  for _, agenda in ipairs(REPLIES) do
    if redis.call('EXISTS', share_queue_key(agenda, tenant)) == 1 then enter_shares(agenda, tenant) end
  end
  if redis.call('EXISTS', capped_key(owner)) == 1 then redis.call('ZADD', AT_CAP, now + LOOK_AGAIN, owner) end
end

-- Returns an equal part of a cap; at least one, or users of a shard would wait for ever.
local function equal_part(cap, shards)
  local shard = tonumber(string.match(root, '{(%x+)}$'), 16)
  return math.max(1, math.floor(cap / shards) + (shard < cap % shards and 1 or 0))
end

-- Returns this shard's part of a tenant's cap, and the number of the balance that set it, 0 for an equal
-- part. All shards together let no more run than the cap. A part of another cap counts no more.
local function cap_part(tenant, cap, shards)
  local part, of, number = string.match(redis.call('HGET', CAP_PARTS, tenant) or '', '^(%d+) (%d+) (%d+)$')
  if tonumber(of) == cap then return tonumber(part), tonumber(number) end
  return equal_part(cap, shards), tonumber(number or 0)
end

local function stopped_running(id, tenant)
  if redis.call('EXISTS', AT_CAP) == 0 then return end
  local lane = redis.call('HGET', job_key(id), 'lane')
  if lane then redis.call('SREM', running_key(lane), id) end
  for _, owner in ipairs({ ':' .. tenant, lane or nil }) do
    if redis.call('ZSCORE', AT_CAP, owner) then let_in(owner) end
  end
end

-- Hints a lane that is neither hinted nor waiting nor leased.
local function hint_idle_lane(lane)
  if not is_placed(LANES, lane) then hint(LANES, lane) end
end

local function count_state(what, tenant, from, to)
  if from then redis.call('HINCRBY', COUNTS, what .. ':' .. from .. ':' .. tenant, -1) end
  redis.call('HINCRBY', COUNTS, what .. ':' .. to .. ':' .. tenant, 1)
end

local function set_job_state(id, tenant, from, to)
  redis.call('HSET', job_key(id), 'state', to)
  count_state('job', tenant, from, to)
  if from == 'running' then stopped_running(id, tenant) end
end

local function set_turn_state(id, tenant, from, to)
  redis.call('HSET', job_key(id), 'turn', to)
  count_state('turn', tenant, from, to)
end

-- Takes turns out of their lane. The lane is then as late as the oldest turn still to be stored.
local MAX_AHEAD = 50
local function leave_lane(lane, ids, tenant)
  redis.call('ZREM', lane_key(lane), unpack(ids))
  for _, other in ipairs(redis.call('ZRANGE', lane_key(lane), 0, MAX_AHEAD - 1)) do
    local turn = redis.call('HMGET', job_key(other), 'turn', 'created')
    if turn[1] == 'pending' or turn[1] == 'writing' then
      return redis.call('ZADD', behind_key(tenant), turn[2], lane)
    end
  end
  redis.call('ZREM', behind_key(tenant), lane)
end

-- Turns that go into one add are a batch. From its first `begin` on, all that is known of storing it
-- is in the record of its oldest turn, which lists its turns in 'batch'.
local function batch_of(id)
  local batch = redis.call('HGET', job_key(id), 'batch')
  if not batch then return { id } end
  local ids = {}
  for each in string.gmatch(batch, '%S+') do ids[#ids + 1] = each end
  return ids
end

-- Returns true for a turn of an older ledger that was put back: it may have been stored since.
local function may_be_stored_since(sequence)
  return tonumber(sequence or 0) <= tonumber(redis.call('GET', PUT_BACK) or 0)
end

local function enter_lane(lane, id, tenant, sequence, created)
  redis.call('ZADD', lane_key(lane), sequence, id)
  redis.call('ZADD', behind_key(tenant), 'LT', created, lane)
end

-- Event ids are '<fence>-<n>', so the stream itself refuses a delta that is sent twice.
-- The message on the wake channel is the event's type: some listeners wait for the end only.
local function emit(id, event, name, kind, ...)
  redis.call('XADD', events_key(id), event, name, kind, ...)
  redis.call('PUBLISH', wake_channel(id), kind)
end

-- The first entry of an attempt after its start brings what was recalled along, in the field
-- 'recalled'. Readers see that as an event of its own, with the number 1; so deltas begin at 2.
local function after_recall(fence, number) return fence .. '-' .. (number + 1) end
local function with_recalled(recalled, ...)
  if recalled == '' then return ... end
  return 'recalled', recalled, ...
end

-- Takes some of what is older than a time out of a list: whoever adds one removes more than one.
local function forget_older(zset, bound)
  local older = redis.call('ZRANGEBYSCORE', zset, '-inf', bound, 'LIMIT', 0, 10)
  if #older > 0 then redis.call('ZREM', zset, unpack(older)) end
end

local function retain(id, retention_ms) redis.call('PEXPIRE', job_key(id), retention_ms) end

-- What became of a job, as far as no other field of its record tells: a line for each step, in the field
-- 'story', see `afterword.shared.ledger.stories`. Of very many, the first and the newest are kept.
local MOST_STORY, FIRST_STEPS, NEWEST_STEPS = 4000, 1000, 2000 -- bytes
local function with_step(story, ...)
  local step = table.concat({ now, ... }, ' ')
  if not story then return step end
  if #story + #step > MOST_STORY then
    local first = string.find(story, '\n', FIRST_STEPS, true) or 0
    local newest = string.find(story, '\n', -NEWEST_STEPS, true) or #story + 1
    story = string.sub(story, 1, first) .. '~' .. string.sub(story, math.max(newest, first))
  end
  return story .. '\n' .. step
end

-- The same, unless the newest step says it already: a job may be passed over many times.
local function with_step_once(story, ...)
  local words = ' ' .. table.concat({ ... }, ' ')
  if story and string.sub(story, -#words) == words then return story end
  return with_step(story, ...)
end

-- Adds a step to the story of a record that exists, once.
local function add_step(id, ...)
  local story = redis.call('HGET', job_key(id), 'story')
  local told = with_step_once(story, ...)
  if told ~= story then redis.call('HSET', job_key(id), 'story', told) end
end

-- The same for a record that may be gone, or newer than the caller knows: that one is left as it is.
local function tell(id, known_version, ...)
  if id and redis.call('EXISTS', job_key(id)) == 1 and not newer_version(id, known_version) then
    add_step(id, ...)
  end
end

-- The id of a conversation, which stands in the request alone. It comes before all that may be long there,
-- or may hold such a key itself: a request is decoded only if its id needs escapes.
local function conversation_id_in(body)
  return string.match(body, '^{[^m]-"conversation_id":"([^"\\]*)"') or cjson.decode(body).conversation_id
end

-- The ids of the memories that a reply was given, JSON; nil if there were none, or it was long ago.
-- XREVRANGE is what both kinds of workers may call.
local function given_in(id, lane, ended)
  for _, entry in ipairs(redis.call('XREVRANGE', given_key(lane), ended, ended, 'COUNT', 10)) do
    if entry[2][2] == id then return entry[2][4] end
  end
end

-- What is left of a record once it is gone: its story and what belongs to that, nothing that was said. Its
-- key is a HASH of its own, since Redis expires keys and not fields. What extraction took is one field of it.
local STORY_FIELDS = { 'version', 'state', 'turn', 'tenant', 'lane', 'sequence', 'created', 'queued', 'deadline',
  'ended', 'code', 'turn_ended', 'turn_code', 'memory_ids', 'story', 'imported', 'replay_of', 'agenda', 'batch' }
local EXTRACTED = { 'extraction:input', 'extraction:output', 'extraction:cache_read', 'extraction:cache_write',
  'extraction:cost', 'extraction:facts' }
local function keep_story(id, story_ms, retention_ms)
  redis.call('DEL', story_key(id))
  if story_ms <= retention_ms then return end
  local kept, fields = {}, {}
  for i, value in ipairs(redis.call('HMGET', job_key(id), unpack(STORY_FIELDS))) do kept[STORY_FIELDS[i]] = value end
  local more = redis.call('HMGET', job_key(id), 'conversation', 'body', unpack(EXTRACTED))
  if more[1] and more[2] then kept.conversation_id = conversation_id_in(more[2]) end
  if kept.lane and kept.ended then kept.given = given_in(id, kept.lane, kept.ended) end
  local extracted, any = {}, false
  for i = 1, #EXTRACTED do
    extracted[i], any = more[i + 2] or 0, any or more[i + 2]
  end
  if any then kept.extraction = table.concat(extracted, ' ') end
  for name, value in pairs(kept) do
    if value and value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  redis.call('HSET', story_key(id), unpack(fields))
  redis.call('PEXPIRE', story_key(id), story_ms)
end

local function or_dash(text) return text == '' and '-' or text end

-- The open jobs of a conversation stand in its queue and are answered in that order. Those behind
-- the first are set aside: they are hinted when it ends, and woken after five minutes in any case,
-- so that a lost queue blocks nobody.
local ASIDE = 300000                -- ms

-- A state that only a newer version knows counts as open.
local ENDED = { succeeded = 1, failed = 1, cancelled = 1, expired = 1 }
local function is_open(id)
  local state = redis.call('HGET', job_key(id), 'state')
  return state and not ENDED[state]
end

-- Returns the first open job of a conversation before a sequence number; drops those that have ended.
local function first_in_conversation(conversation, before)
  local queue = conversation_queue_key(conversation)
  while true do
    local first = redis.call('ZRANGEBYSCORE', queue, '-inf', '(' .. before, 'LIMIT', 0, 1)[1]
    if not first or is_open(first) then return first end
    redis.call('ZREM', queue, first)
  end
end

-- Sets a queued job aside and returns true if an earlier job of its conversation is open.
local function set_aside(id, agenda, conversation, sequence)
  local first = conversation and first_in_conversation(conversation, sequence)
  if not first then return false end
  if redis.call('HSET', job_key(id), 'aside', 1) == 1 then add_step(id, 'aside', first) end
  move_to('waiting', agenda, id, now + ASIDE)
  return true
end

local function leave_conversation_queue(id, conversation)
  redis.call('ZREM', conversation_queue_key(conversation), id)
  local first = first_in_conversation(conversation, 'inf')
  if not first then return end
  local job = redis.call('HMGET', job_key(first), 'aside', 'agenda', 'tenant')
  if not job[1] then return end
  redis.call('HDEL', job_key(first), 'aside')
  add_step(first, 'next')
  hint_job(job[2], first, job[3])
end

-- The open jobs of a conversation, a user and a tenant are counted, with the bytes of their requests
-- and how many of them are of the priority `high`: '<jobs> <bytes> <high>'. A job is counted while it
-- stands in OPEN: whoever puts it there or takes it out of there counts it.
local HIGH = 'replies.0'
local function owners_of(lane, tenant, conversation) return { ':' .. tenant, lane, conversation or nil } end

local function parse_count(text)
  local jobs, bytes, high = string.match(text or '', '^(%d+) (%d+) (%d+)$')
  return { tonumber(jobs or 0), tonumber(bytes or 0), tonumber(high or 0) }
end
local function count_text(count) return string.format('%d %d %d', count[1], count[2], count[3]) end

local function add_to_counts(counts, sign, bytes, agenda)
  for _, count in ipairs(counts) do
    count[1], count[2] = count[1] + sign, math.max(count[2] + sign * bytes, 0)
    if agenda == HIGH then count[3] = math.max(count[3] + sign, 0) end
  end
end

local caps_text, caps_read
local function read_caps(text)
  if text ~= caps_text then
    caps_text, caps_read = text, {}
    for each in string.gmatch(text, '%d+') do caps_read[#caps_read + 1] = tonumber(each) end
  end
  return caps_read
end

-- Most jobs that one command interrupts, however many submits it runs.
local MAX_INTERRUPTED, interrupted = 24, 0

local function count_open_job(id, sign, agenda, owners)
  local counts, updates = {}, {}
  for i, text in ipairs(redis.call('HMGET', OPEN_COUNTS, unpack(owners))) do counts[i] = parse_count(text) end
  add_to_counts(counts, sign, redis.call('HSTRLEN', job_key(id), 'body'), agenda)
  for i, count in ipairs(counts) do
    if count[1] > 0 then
      updates[#updates + 1] = owners[i]
      updates[#updates + 1] = count_text(count)
    else
      redis.call('HDEL', OPEN_COUNTS, owners[i])
    end
  end
  if #updates > 0 then redis.call('HSET', OPEN_COUNTS, unpack(updates)) end
end

-- What every end of a job does: it is no longer open, leased or hinted.
local function close_job(id, agenda, owners, stream_ms)
  remove_from_agenda(agenda, id)
  if owners[3] then leave_conversation_queue(id, owners[3]) end
  if redis.call('ZREM', OPEN, id) == 1 then count_open_job(id, -1, agenda, owners) end
  redis.call('PEXPIRE', events_key(id), stream_ms)
end

-- Lists a job among those of its user: once it has ended, at once if it has no turn, which would stand in
-- its lane. Past turns have a list of their own, '<lane>/imported': a history does not push out the rest.
local MOST_LISTED = 100
local function list_job(lane, id, sequence, retention_ms)
  redis.call('ZADD', user_jobs_key(lane), sequence, id)
  local older = redis.call('ZRANGE', user_jobs_key(lane), 0, -1 - MOST_LISTED)
  if #older > 0 then redis.call('ZREM', user_jobs_key(lane), unpack(older)) end
  redis.call('PEXPIRE', user_jobs_key(lane), retention_ms, 'NX')
  redis.call('PEXPIRE', user_jobs_key(lane), retention_ms, 'GT')
end

-- Puts a job back whose worker is lost. It keeps the token: whoever claims it counts what was used.
local function take_back_job(agenda, id, tenant)
  set_job_state(id, tenant, 'running', 'queued')
  add_step(id, 'lost')
  hint_job(agenda, id, tenant)
end

-- An attempt that neither ended nor gave its job back has a token. If it lives, it is told that its job ended or
-- was taken from it, and tells what it used; if not, a response worker counts an estimate, see
-- `job/due_lost_attempts`.
local TELLS_WITHIN = 60000          -- ms
local function watch_attempt(id, listed_as)
  local attempt = redis.call('HMGET', job_key(id), 'token', 'fence', 'counted')
  if attempt[1] and attempt[2] ~= attempt[3] then
    redis.call('ZADD', LOST_ATTEMPTS, now + TELLS_WITHIN, listed_as or id)
  end
end

-- Ends a job without a reply. Its lane no longer waits for its turn (I4).
local function end_job(id, state, code, retention_ms, stream_ms)
  local job = redis.call('HMGET', job_key(id), 'state', 'tenant', 'agenda', 'lane', 'turn', 'attempts',
    'conversation', 'sequence')
  redis.call('HSET', job_key(id), 'code', code, 'ended', now)
  list_job(job[4], id, job[8], retention_ms)
  if job[1] == 'queued' then leave_share_queue(job[3], id, job[2]) end
  set_job_state(id, job[2], job[1], state)
  emit(id, next_sequence() .. '-*', 'type', 'failed', 'state', state, 'code', code, 'attempt', job[6])
  if job[5] == 'awaited' then
    set_turn_state(id, job[2], 'awaited', 'none')
    redis.call('ZREM', lane_key(job[4]), id)
    if redis.call('EXISTS', lane_key(job[4])) == 1 then hint_idle_lane(job[4]) end
  end
  close_job(id, job[3], owners_of(job[4], job[2], job[7]), stream_ms)
  watch_attempt(id)
  if job[5] ~= 'pending' then retain(id, retention_ms) end
  if state == 'failed' then
    forget_older(FAILED_JOBS, now - retention_ms)
    redis.call('ZADD', FAILED_JOBS, now, id)
  end
end

-- Cancels a job; if a worker is running it, that worker is told to stop.
local function stop_job(id, code, retention_ms, stream_ms)
  local running = redis.call('HGET', job_key(id), 'state') == 'running'
  end_job(id, 'cancelled', code, retention_ms, stream_ms)
  if running then redis.call('PUBLISH', FENCED, id) end
end

-- Bodies are canonical JSON: keys in order, a quote in a text always behind a backslash. So the first
-- '"message":"' is the message, since only plain values come before it. Returns where its text stands.
local function message_in(body)
  local _, before = string.find(body, '"message":"', 1, true)
  local at = before
  while at do
    at = string.find(body, '["\\]', at + 1)
    if at and string.byte(body, at) == 34 then return before + 1, at - 1 end
    at = at and at + 1              -- past what the backslash escapes
  end
end

local function add_to_history(conversation, turn, max_turns, conversation_ms)
  redis.call('RPUSH', conversation_key(conversation), turn)
  redis.call('LTRIM', conversation_key(conversation), -max_turns, -1)
  redis.call('PEXPIRE', conversation_key(conversation), conversation_ms)
end

-- Keeps what the user said in a job that is to be stopped: for memory, unless it has no turn, and in the
-- history of its conversation. Workers of version 1 expect a reply in each turn.
local UNANSWERED_VERSION = 2
local function keep_what_was_said(id, max_turns, conversation_ms)
  local job = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'lane', 'sequence', 'created',
    'conversation', 'body', 'version')
  if job[1] == 'awaited' then
    redis.call('HSET', job_key(id), 'version', math.max(job[8], UNANSWERED_VERSION))
    set_turn_state(id, job[2], 'awaited', 'pending')
    enter_lane(job[3], id, job[2], job[4], job[5])
    hint_idle_lane(job[3])
  end
  local from, to = message_in(job[7])
  if not job[6] or not from then return end
  local said = string.match(job[7], '^{"at":("[^"]*")')
  add_to_history(job[6], '{"id":"' .. id .. '","sequence":' .. job[4] .. ',"at":' .. job[5]
    .. (said and ',"said":' .. said or '') .. ',"user":"' .. string.sub(job[7], from, to)
    .. '","reply":"","stop_reason":"unanswered"}', max_turns, conversation_ms)
end

-- Returns true while no newer attempt exists.
local function holds_job(id, fence)
  local job = redis.call('HMGET', job_key(id), 'state', 'fence')
  return job[1] == 'running' and job[2] == fence
end

local function holds_lane(lane, fence) return redis.call('HGET', FENCES, lane) == fence end

-- Returns the message batch that the first turn of a batch waits for, if any. Its mark says 'alone' if no
-- message batch is to take it. One that nobody has looked at for too long holds nothing up.
local LONGEST_MESSAGE_BATCH = 26 * 3600000 -- ms
local function message_batch_of(id)
  local name = redis.call('HGET', job_key(id), 'message_batch')
  local opened = name and redis.call('HGET', message_batch_key(name), 'opened')
  return opened and now - opened < LONGEST_MESSAGE_BATCH and name
end

local function leave_message_batch(id, facts, delay_ms, again)
  local record = redis.call('HMGET', job_key(id), 'turn', 'lane')
  if record[1] ~= 'pending' and record[1] ~= 'writing' then
    redis.call('HDEL', job_key(id), 'message_batch')
    return
  end
  if facts ~= '' then redis.call('HSET', job_key(id), 'facts', facts) end
  if facts ~= '' or again then
    redis.call('HDEL', job_key(id), 'message_batch')
  else
    redis.call('HSET', job_key(id), 'message_batch', 'alone')
    add_step(id, 'wait', 'message_batch_failed')
  end
  if not redis.call('ZSCORE', place_key('waiting', LANES), record[2]) then return end
  if delay_ms > 0 then move_to('waiting', LANES, record[2], now + delay_ms) else hint(LANES, record[2]) end
end

-- A gate is a circuit breaker before a provider, shared by the whole fleet. Its HASH exists while it
-- is not open: 'until' when it is shut, 'opened' since when it opens slowly, 'next' free retry time,
-- 'by' which operator shut it by hand.
local GATES = root .. ':gates'      -- SET of the gates that are not open
local GATE_NEWS = root .. ':gate-news' -- CHANNEL '<shut|doubted> <gate>'
local GATE_LIFE = 86400000          -- ms; a gate that nobody asks about is forgotten
local MAX_FAILURES, DOUBT = 5, 3    -- without a success in between
local FOREVER = 2 ^ 53              -- 'until' of a gate that is shut until it is opened by hand
local LONGEST_WAIT = 60000          -- ms
local OCTAVES, FASTEST = 10, 8      -- of a slow start; of retries
local function gate_key(name) return root .. ':gate:' .. name end              -- HASH
local function gate_failures_key(name) return root .. ':gate-failures:' .. name end -- SET of tokens

local function open_gate(name)
  redis.call('DEL', gate_key(name), gate_failures_key(name))
  redis.call('SREM', GATES, name)
end

local function gate_record(name)
  local record, fields = {}, redis.call('HGETALL', gate_key(name))
  for i = 1, #fields, 2 do record[fields[i]] = fields[i + 1] end
  return record
end

local function is_shut_by_hand(record)
  return record.by and not record.opened and now < tonumber(record['until'])
end

local function shut_gate(name, fields)
  redis.call('HDEL', gate_key(name), 'opened', 'canary', 'lease', 'by', 'reason')
  redis.call('HSET', gate_key(name), 'shut', now, unpack(fields))
  redis.call('DEL', gate_failures_key(name))
  redis.call('SADD', GATES, name)
end

local function begin_slow_start(name)
  redis.call('HSET', gate_key(name), 'opened', now, 'granted', 0, 'until', now)
  redis.call('HDEL', gate_key(name), 'canary', 'lease', 'next', 'asked', 'by', 'reason')
  redis.call('PEXPIRE', gate_key(name), GATE_LIFE)
end

local function end_slow_start(name, octave_ms)
  local opened = redis.call('HGET', gate_key(name), 'opened')
  if opened and now - opened >= OCTAVES * octave_ms then open_gate(name) end
end

-- Returns when a refused caller should retry: each gets a time of its own, from when the gate may
-- open on, 1, 2, 4 ... 256 callers an octave. The schedule continues where it ended, however often
-- the gate shuts again, so that 100,000 waiting callers cost at most 256 requests an octave. Nobody
-- is told to wait for more than LONGEST_WAIT: the gate may be opened by hand.
local function retry_after_ms(name, octave_ms)
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'next')
  local base = math.min(tonumber(gate[2] or gate[1]), now + LONGEST_WAIT)
  local slot = math.max(tonumber(gate[3] or 0), base, now + octave_ms / 4)
  local rate = 2 ^ math.min((slot - base) / octave_ms, FASTEST)
  redis.call('HSET', gate_key(name), 'next', slot + octave_ms / rate)
  return math.ceil(slot - now)
end

-- A quota is what a provider's rate limit has left, as its headers told and less what was reserved since.
-- HASH: of each part 'limit:', 'level:' when it was written ('at') and 'refill:', ms from none to all of
-- it; 'open:<slot>:<part>' are sums of reservations; 'calls' and 'newest' number them; 'fresh', 'returning'
-- and 'memory' are when the last one of each queue was told to ask again. Lost, it is learned anew.
local QUOTA_PARTS = { 'requests', 'input', 'output', 'tokens' }
local QUOTA_LIFE = 86400000         -- ms
local QUOTA_SLOT, QUOTA_SLOT_LIFE = 5000, 120000 -- ms; the longest time that a reservation counts
local KEPT_FOR_REPLIES, KEPT_FOR_WAITING = 0.2, 0.1 -- shares of a limit
local SHORTEST_WAIT, SHORTEST_WAIT_OF_MEMORY, LONGEST_WAIT_FOR_QUOTA = 100, 5000, 900000 -- ms
local LONGEST_REFILL = 60000        -- ms for which calls wait for a limit that refills more slowly
local function quota_key(name) return root .. ':quota:' .. name end            -- HASH

-- Returns what each part has left now: it refills all the time.
local function quota_levels(name)
  local fields, found = { 'at' }, {}
  for _, part in ipairs(QUOTA_PARTS) do
    for _, field in ipairs({ 'limit:', 'level:', 'refill:' }) do fields[#fields + 1] = field .. part end
  end
  local values = redis.call('HMGET', quota_key(name), unpack(fields))
  local passed = math.max(0, now - (values[1] or now))
  for i, part in ipairs(QUOTA_PARTS) do
    local limit, refill = tonumber(values[3 * i - 1]), tonumber(values[3 * i + 1])
    if limit then
      local level = math.min(limit, values[3 * i] + passed * limit / refill)
      found[part] = { limit = limit, level = level, refill = refill }
    end
  end
  return found
end

local function write_quota_levels(name, levels)
  local fields = { 'at', now }
  for part, one in pairs(levels) do
    fields[#fields + 1] = 'level:' .. part
    fields[#fields + 1] = one.level
  end
  redis.call('HSET', quota_key(name), unpack(fields))
  redis.call('PEXPIRE', quota_key(name), QUOTA_LIFE)
end

-- A request about memories stands in the agenda of lanes under a name that no lane has, and is leased
-- as a lane is. Its hint goes ahead of all others: somebody waits for the answer.
local function hint_ahead(id)
  move_to('hinted', LANES, id, now)
  push_ahead(LANES, id)
end

local function end_memory_request(id)
  redis.call('HDEL', FENCES, id)
  redis.call('ZREM', MEMORY_REQUESTS, id)
  remove_from_agenda(LANES, id)
end

-- Grants the lease of a lane, or of a request, to the one who names it by a token; returns its fence.
-- Returns nil if another one holds it.
local function claim_lease(id, token, lease_ms)
  local leased = tonumber(redis.call('ZSCORE', place_key('leased', LANES), id) or 0)
  local fence = redis.call('HGET', FENCES, id)
  local mine = fence and string.sub(fence, -#token) == token
  if leased > now and fence and not mine then return nil end
  if not mine then
    fence = next_sequence() .. '.' .. token
    redis.call('HSET', FENCES, id, fence)
  end
  lease(LANES, id, lease_ms, true)
  return fence
end

local function is_being_erased(lane)
  local state = redis.call('HGET', erasure_key(lane), 'state')
  return state and state ~= 'erased'
end

-- The user's turns before one that are not in memory yet, newest first: at most `most`, and no more once
-- `most_bytes` are read.
local function overlay(lane, sequence, erasing, most, most_bytes, known_version)
  local turns, bytes = {}, 0
  local since = erasing and '(' .. redis.call('HGET', erasure_key(lane), 'sequence') or '-inf'
  local ids = redis.call('ZREVRANGEBYSCORE', lane_key(lane), '(' .. sequence, since, 'LIMIT', 0, most * 2)
  for _, each in ipairs(ids) do
    local turn = redis.call('HMGET', job_key(each), 'created', 'turn', 'body', 'reply', 'version')
    local known = turn[5] and tonumber(turn[5]) <= known_version
    if known and (turn[2] == 'pending' or turn[2] == 'writing') and #turns < most then
      local reply = turn[4] or ''   -- its job was stopped
      turns[#turns + 1] = { each, turn[1], turn[3], reply }
      bytes = bytes + #turn[3] + #reply
    end
    if bytes > most_bytes then break end
  end
  return turns
end

-- The newest turns of a conversation, newest first, read a few at a time: each may be long.
local AT_ONCE = 4
local function newest_history(conversation, most, most_bytes)
  local turns, bytes, left = {}, 0, most
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

-- How many bytes of a reply an attempt has published.
local MOST_EVENTS = 2000
local function published_bytes(id, fence)
  local bytes = 0
  for _, event in ipairs(redis.call('XREVRANGE', events_key(id), fence, fence, 'COUNT', MOST_EVENTS)) do
    if event[2][2] == 'delta' then bytes = bytes + #event[2][#event[2]] end
  end
  return bytes
end

-- An operator's order is in force until its time is over, by this clock, or until it is lifted. Its name
-- is '<what> <whom>': what is pause-replies, pause-memories, block, slow, limits or drain; whom is '*',
-- ':' and a tenant, a lane, or a worker. It says 'id', 'since', 'until' (0 without an end), 'by',
-- 'reason'; and 'interval_ms' between two jobs (slow), 'limits' (limits), 'instance' (drain).
-- What cannot be read is no order, and no limit: otherwise one broken record would stop the fleet.
local function is_amount(value) return type(value) == 'number' and value >= 0 and value < math.huge end

local function order_in(text)
  local fine, order = pcall(cjson.decode, text or '')
  if not fine or type(order) ~= 'table' or type(order.id) ~= 'string' or not is_amount(order['until'])
    or not is_amount(order.interval_ms or 0) then return end
  local limits = {}
  for limit, value in pairs(type(order.limits) == 'table' and order.limits or {}) do
    if is_amount(value) then limits[limit] = value end
  end
  order.limits = limits
  if order['until'] == 0 or order['until'] > now then return order end
end

local are_orders
local function first_order(names)
  if are_orders == nil then are_orders = redis.call('EXISTS', ORDERS) == 1 end
  if not are_orders then return end
  for i, text in ipairs(redis.call('HMGET', ORDERS, unpack(names))) do
    local order = order_in(text)
    if order then return order, names[i] end
  end
end

-- Returns nil, or the limits that an operator gave a tenant, each nil if it was not given: weight,
-- most_running, most_running_per_user, most_open, most_bytes; and budgets, see `budgets_in_force`.
local function tenant_limits(tenant)
  local order = first_order({ 'limits :' .. tenant })
  return order and order.limits
end

-- What a tenant (':' and its name) or a lane's user has spent, in millionths of a US dollar: in all, and in
-- each day or month, by UTC, if there are budgets for such a period; then also in tokens.
local function spent_key(owner) return root .. ':spent:' .. owner end      -- STRING
local function spent_in_key(owner, period) return spent_key(owner) .. '/' .. period end -- STRING
local DAY = 86400000                -- ms

-- Returns the name of the period that it is now, and when it ends. The rest is the calendar: days since
-- the first of March of year 0 in eras of 400 years.
local function period_now(kind)
  local days = math.floor(now / DAY)
  if kind == 'day' then return 'day-' .. days, (days + 1) * DAY end
  local shifted = days + 719468
  local era = math.floor(shifted / 146097)
  local of_era = shifted - era * 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  local first = days - (of_year - math.floor((153 * month + 2) / 5))
  local long = math.floor((153 * (month + 1) + 2) / 5) - math.floor((153 * month + 2) / 5)
  if month == 11 then              -- February ends the year that begins in March
    local own = era * 400 + year + 1
    long = (own % 4 == 0 and (own % 100 ~= 0 or own % 400 == 0)) and 29 or 28
  end
  return 'month-' .. first, (first + long) * DAY
end

local BUDGETS = { 'tenant_usd', 'user_usd', 'tenant_tokens', 'user_tokens' }

-- Tenants that have spent something since the other shards were told, see `TenantSpending`.
local SPENDERS = root .. ':spenders' -- ZSET tenant -> when

-- Takes '<day or month>', or with a '?' before it: then only the tenant's orders can be budgets. With a '+'
-- behind it there are other shards.
local function add_spending(owners, kind, cost, tokens, lifetime_ms)
  if cost + tokens <= 0 then return end
  local unset, name, shared = string.match(kind, '^(%??)(%a+)(%+?)$')
  local counted = unset == ''
  local ordered = not counted and tenant_limits(string.sub(owners[1], 2)) or {}
  for _, budget in ipairs(BUDGETS) do counted = counted or ordered[budget] ~= nil end
  if counted and shared == '+' then redis.call('ZADD', SPENDERS, now, string.sub(owners[1], 2)) end
  local function add(key, amount, life)
    if amount == 0 then return end
    redis.call('INCRBY', key, amount)
    if life then redis.call('PEXPIRE', key, life) end
  end
  for _, owner in ipairs(owners) do
    add(spent_key(owner), cost, string.sub(owner, 1, 1) ~= ':' and lifetime_ms)
    if counted then
      local period, ends = period_now(name)
      local life = ends - now + 35 * DAY -- for those who look back
      add(spent_in_key(owner, period), cost, life)
      add(spent_in_key(owner, period .. '/tokens'), tokens, life)
    end
  end
end

-- Counts what extracting facts of a batch took, for its first turn, its user and its tenant. `paid` is '', or
-- the period of budgets (see `add_spending`), the lifetime of a user's sums in ms, and all that the attempt of
-- a fence has used so far: '<period> <lifetime> <input> <output> <cache_read> <cache_write> <cost>'. So what it
-- told before is taken off.
local function count_extraction(id, tenant, lane, fence, paid)
  local period, lifetime_ms, told = string.match(paid, '^(%S+) (%d+) (.+)$')
  if not told then return end
  local names = { 'input', 'output', 'cache_read', 'cache_write', 'cost' }
  local known_fence, known = string.match(redis.call('HGET', job_key(id), 'extraction:told') or '', '^(%S+) (.*)$')
  local before = string.gmatch(known_fence == fence and known or '', '%d+')
  local added, i, any = {}, 0, false
  for amount in string.gmatch(told, '%d+') do
    i = i + 1
    added[names[i]] = amount - (before() or 0)
    any = any or added[names[i]] > 0
  end
  if not any then return end
  local times = 1 + (redis.call('HGET', job_key(id), 'extraction:lost') or 0)
  redis.call('HDEL', job_key(id), 'extraction:lost')
  for name, amount in pairs(added) do
    added[name] = times * amount
    for _, sums in ipairs({ job_key(id), tenant_usage_key(tenant), usage_key(lane) }) do
      if amount > 0 then redis.call('HINCRBY', sums, 'extraction:' .. name, times * amount) end
    end
  end
  local given = added.input + added.cache_read + added.cache_write
  redis.call('HSET', job_key(id), 'extraction:told', fence .. ' ' .. told)
  redis.call('PEXPIRE', usage_key(lane), lifetime_ms)
  add_spending({ ':' .. tenant, lane }, period, added.cost, given + added.output, lifetime_ms)
  add_step(id, 'extract', given, added.output, added.cost)
end

-- A writer that is gone tells no more what it paid for facts: the next one's price counts for it, too. `id` is
-- the first turn of its lane. Nothing is missing if it had told, or if its facts are kept.
local function lose_extraction(id, fence, known_version)
  if not id or newer_version(id, known_version) then return end
  local turn = redis.call('HMGET', job_key(id), 'turn', 'turn_fence', 'facts', 'extraction:told')
  if turn[1] ~= 'writing' or turn[2] ~= fence or turn[3] then return end
  if string.match(turn[4] or '', '^%S+') ~= fence then redis.call('HINCRBY', job_key(id), 'extraction:lost', 1) end
end

-- Takes four amounts, '-' for none, and '<day or month>': of the tenant and of a user in millionths, then in
-- tokens. Returns them as they are in force, nil for none: an order comes before them.
local function budgets_in_force(tenant, budgets)
  local found = { string.match(budgets, '^(%S+) (%S+) (%S+) (%S+) (%a+)$') }
  local ordered = tenant_limits(tenant) or {}
  for i, name in ipairs(BUDGETS) do
    local most = ordered[name]
    found[name] = most and most * (i <= 2 and 1000000 or 1) or tonumber(found[i])
  end
  return found, found[5]
end

-- Returns whose budget is spent, as far as a share of it counts, and when the period ends.
local function over_budget(tenant, lane, budgets, share)
  local most, kind = budgets_in_force(tenant, budgets)
  if not (most.tenant_usd or most.user_usd or most.tenant_tokens or most.user_tokens) then return end
  local period, ends = period_now(kind)
  local function spent(key) return (redis.call('GET', key) or 0) + (redis.call('GET', key .. '/elsewhere') or 0) end
  local function is_spent(owner, usd, tokens)
    local key = spent_in_key(owner, period)
    return usd and spent(key) >= usd * share or tokens and spent(key .. '/tokens') >= tokens * share
  end
  if is_spent(lane, most.user_usd, most.user_tokens) then return 'user', ends end
  if is_spent(':' .. tenant, most.tenant_usd, most.tenant_tokens) then return 'tenant', ends end
end

-- Takes an order away; what waits for its end is woken by the sweep, some at a time.
local function end_order(name)
  local order = redis.call('HGET', ORDERS, name)
  if not order then return nil end
  redis.call('HDEL', ORDERS, name)
  redis.call('ZREM', ORDER_ENDS, name)
  local id = string.match(order, '"id":"(%d+)"')
  if id then redis.call('ZADD', ENDED_ORDERS, now, id) end
  return order_in(order)
end

-- What waits for the end of an order is looked at once an hour all the same, so that nothing that is
-- lost keeps it there.
local RECHECK = 3600000             -- ms
local function park(agenda, id, order, due)
  local most = order['until'] > 0 and order['until'] or now + RECHECK
  due = math.min(due or most, most)
  forget_older(parked_key(order.id), now)
  redis.call('ZADD', parked_key(order.id), due, agenda .. ' ' .. id)
  move_to('waiting', agenda, id, due)
end

-- Returns when a job of somebody who is slowed may be claimed. Each is given a time of its own, unless
-- its deadline comes first: then it leaves the time to others.
local function slot_of(id, order, deadline)
  local given, at = string.match(redis.call('HGET', job_key(id), 'slot') or '', '^(%S+) (%d+)$')
  if given == order.id then return tonumber(at) end
  local slot = math.max(tonumber(redis.call('HGET', SLOTS, order.id) or 0), now)
  if slot >= deadline then return slot end
  redis.call('HSET', SLOTS, order.id, string.format('%.0f', slot + order.interval_ms))
  redis.call('HSET', job_key(id), 'slot', order.id .. ' ' .. string.format('%.0f', slot))
  return slot
end

-- Lets a queued job wait, and returns true, if an order stops it, or if it is slowed and not due.
local function park_job(id, agenda, tenant, lane, deadline)
  local order, name = first_order({ 'pause-replies *', 'pause-replies :' .. tenant, 'pause-replies ' .. lane,
    'block :' .. tenant, 'block ' .. lane, 'slow ' .. lane, 'slow :' .. tenant })
  if not order then return false end
  local due = order.interval_ms and slot_of(id, order, deadline)
  if due and due <= now then return false end
  redis.call('HSET', job_key(id), 'parked', name)
  add_step(id, 'park', string.match(name, '^%S+'))
  park(agenda, id, order, due)
  return true
end

-- Lets a lane wait, and returns the kind of the order, if one stops what is written for its user.
local function park_lane(lane)
  local tenant = string.gsub(string.match(lane, '^l%x%x_([^/]*)') or '', '%%(%x%x)', function(code)
    return string.char(tonumber(code, 16))
  end)
  local order, name = first_order({ 'pause-memories *', 'pause-memories :' .. tenant, 'pause-memories ' .. lane,
    'block :' .. tenant, 'block ' .. lane })
  if not order then return false end
  redis.call('HDEL', FENCES, lane)
  park(LANES, lane, order)
  return string.match(name, '^%S+')
end

-- A replay run is one replay of many dead letters, as an operator started it. Runs are on the first
-- shard, beside the audit of what operators did.
local REPLAY_RUNS = root .. ':replay-runs' -- ZSET   run -> when it began
local AUDIT = root .. ':audit'      -- STREAM of entries: by, action, run, details (JSON)
local MAX_AUDIT_ENTRIES = 100000
local function run_key(run) return root .. ':replay-run:' .. run end                   -- HASH
local function todo_key(run) return root .. ':replay-todo:' .. run end                 -- ZSET letter -> place
local function outcomes_key(run) return root .. ':replay-outcomes:' .. run end         -- HASH job id -> outcome

local function drives_run(run, token) return redis.call('HGET', run_key(run), 'driver') == token end

local function retain_run(run, lifetime_ms)
  for _, key in ipairs({ run_key(run), todo_key(run), outcomes_key(run) }) do
    redis.call('PEXPIRE', key, lifetime_ms)
  end
end

local function add_audit_entry(by, action, run, details)
  redis.call('XADD', AUDIT, 'MAXLEN', '~', MAX_AUDIT_ENTRIES, '*', 'by', by, 'action', action,
    'run', run, 'details', details)
end

local RECENT = 100                  -- entries searched for one whose reply was lost
local function audit_once(token, by, action, details)
  for _, entry in ipairs(redis.call('XREVRANGE', AUDIT, '+', '-', 'COUNT', RECENT)) do
    if entry[2][6] == token then return end
  end
  add_audit_entry(by, action, token, details)
end

local function end_run(run, state, reason, by)
  redis.call('HSET', run_key(run), 'state', state, 'reason', reason)
  local details = { reason = reason }
  local fields = redis.call('HGETALL', run_key(run))
  for i = 1, #fields, 2 do
    local outcome = string.match(fields[i], '^count:(.+)$')
    if outcome and fields[i + 1] ~= '0' then details[outcome] = tonumber(fields[i + 1]) end
  end
  add_audit_entry(by, state, run, cjson.encode(details))
end

-- Every script returns its answer and the hints that the caller must send.
local function answer(...) return { { ... }, unsent } end
