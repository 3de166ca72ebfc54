-- Put a batch back to pending and release its lane until later.
---@param lane string
---@param fence string
---@param id string               first turn of the batch
---@param delay_ms integer
---@param counted boolean         whether the attempt counts: a retry if so, otherwise a snooze
---@param code string
---@param may_be_stored boolean   whether mem0 may have stored it all the same
---@param split boolean           whether each turn is a batch of its own from now on, with no attempts
---@param paid string   what the attempt has paid for facts so far, see `count_extraction`, or ''
-- Answers ok | lost. Repeated by the same writer, it is done once.
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'turn_fence')
if turn[1] == 'pending' and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
count_extraction(id, turn[2], lane, fence, paid)
local HELD = { quota_used_up = 1, budget = 1 }
local NO_FAILURES = { storing = 1, drained = 1, message_batch = 1 }
local failed = not HELD[code] and not NO_FAILURES[code]
for _, each in ipairs(batch_of(id)) do
  set_turn_state(each, turn[2], 'writing', 'pending')
  redis.call('HSET', job_key(each), 'turn_code', code)
  add_step(each, 'postpone', counted and 'counted' or split and 'split' or 'snoozed', delay_ms, or_dash(code))
  if failed then redis.call('HSETNX', job_key(each), 'turn_first_failed', now) end
  if split then redis.call('HSET', job_key(each), 'batch', each) end
end
if not counted then
  redis.call('HINCRBY', job_key(id), 'turn_attempts', -1)
  if failed then redis.call('HINCRBY', job_key(id), 'turn_snoozes', 1) end
end
if not may_be_stored or split then
  redis.call('HDEL', job_key(id), 'turn_intent', 'event', 'event_at')
end
if split then
  redis.call('HSET', job_key(id), 'turn_attempts', 0)
  redis.call('HDEL', job_key(id), 'facts', 'message_batch')
  if may_be_stored then redis.call('HSET', job_key(id), 'turn_doubtful', 1) end
end
-- Of a batch that only waited for room nothing was sent, or is noted: it takes in what comes meanwhile.
local known = redis.call('HMGET', job_key(id), 'turn_first_failed', 'turn_doubtful', 'facts')
if HELD[code] and not may_be_stored and not (known[1] or known[2] or known[3]) then
  for _, each in ipairs(batch_of(id)) do redis.call('HDEL', job_key(each), 'batch') end
end
redis.call('HDEL', FENCES, lane)
move_to('waiting', LANES, lane, now + delay_ms)
return answer('ok')
