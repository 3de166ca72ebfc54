-- Take a turn out of a message batch: with what was extracted from it, or for a call of its own.
---@param batch string
---@param id string
---@param facts string             '' if the batch has no usable answer
---@param paid string   what the answer cost, see `count_extraction`, or ''
-- Answers ok, its tenant | unknown (it is not in this batch, or not any more). Repeated, it is done once.
if redis.call('SREM', message_batch_turns_key(batch), id) == 0 then return answer('unknown') end
local turn = redis.call('HMGET', job_key(id), 'message_batch', 'tenant', 'lane')
if turn[1] ~= batch then return answer('unknown') end
count_extraction(id, turn[2], turn[3], batch, paid)
leave_message_batch(id, facts, 0)
return answer('ok', turn[2])
