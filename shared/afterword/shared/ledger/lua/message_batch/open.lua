-- Record which turns go into a message batch, before it is sent: so nobody sends them a second time.
---@param batch string       its name here
---@param look_ms integer    when to look what became of it, unless more is noted until then
---@param wait_ms integer    how long their lanes wait, if nobody wakes them
---@param ids string[]       the first turns of what goes into one add each
-- Answers the ids that are in it. Others were stored or erased meanwhile, or are in another one. Repeated,
--   it answers the same.
local taken = {}
for _, id in ipairs(ids) do
  local turn = redis.call('HMGET', job_key(id), 'turn', 'lane', 'facts')
  local open = turn[1] == 'pending' or turn[1] == 'writing'
  local other = message_batch_of(id)
  if open and not turn[3] and (not other or other == batch) and not is_being_erased(turn[2]) then
    redis.call('HSET', job_key(id), 'message_batch', batch)
    add_step(id, 'wait', 'message_batch')
    redis.call('SADD', message_batch_turns_key(batch), id)
    if redis.call('ZSCORE', place_key('waiting', LANES), turn[2]) then
      move_to('waiting', LANES, turn[2], now + wait_ms)
    end
    taken[#taken + 1] = id
  end
end
if #taken > 0 then
  redis.call('HSETNX', message_batch_key(batch), 'opened', now)
  redis.call('HSETNX', message_batch_key(batch), 'provider', '')
  redis.call('ZADD', MESSAGE_BATCHES, now + look_ms, batch)
  redis.call('PEXPIRE', message_batch_key(batch), MESSAGE_BATCH_LIFE)
  redis.call('PEXPIRE', message_batch_turns_key(batch), MESSAGE_BATCH_LIFE)
end
return answer(taken)
