-- Take turns out of a message batch that has no answer for them. Without any, the batch is
-- forgotten.
---@param batch string
---@param alone boolean      whether each is extracted by a call of its own; else the next batch takes them
---@param delay_ms integer   until their lanes go on
---@param kept boolean       whether the provider still has it: it stays listed without turns, to be deleted there
---@param limit integer      most turns of one call
-- Answers more | ok.
for _, id in ipairs(redis.call('SPOP', message_batch_turns_key(batch), limit)) do
  if redis.call('HGET', job_key(id), 'message_batch') == batch then
    leave_message_batch(id, '', delay_ms, not alone)
  end
end
if redis.call('EXISTS', message_batch_turns_key(batch)) == 1 then return answer('more') end
if kept then return answer('ok') end
redis.call('DEL', message_batch_key(batch))
redis.call('ZREM', MESSAGE_BATCHES, batch)
return answer('ok')
