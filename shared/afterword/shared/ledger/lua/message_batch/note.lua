-- Note what is known of a message batch: the id that the provider gave it, and when to look again.
---@param batch string
---@param provider string    the provider's id; '' if none is known
---@param not_ours string    ids that were looked at and are another batch's, separated by spaces
---@param look_ms integer
-- Answers ok | gone. Repeated, it is done once.
if redis.call('EXISTS', message_batch_key(batch)) == 0 then return answer('gone') end
redis.call('HSET', message_batch_key(batch), 'provider', provider, 'not_ours', not_ours)
redis.call('ZADD', MESSAGE_BATCHES, now + look_ms, batch)
return answer('ok')
