-- Keep what was extracted from a batch that is being stored, so that no later attempt pays for it again.
---@param lane string
---@param fence string
---@param id string      first turn of the batch
---@param facts string
---@param paid string   what the attempt has paid for facts so far, see `count_extraction`, or ''
-- Answers ok | lost.
if not holds_lane(lane, fence) then return answer('lost') end
count_extraction(id, redis.call('HGET', job_key(id), 'tenant'), lane, fence, paid)
redis.call('HSET', job_key(id), 'facts', facts)
return answer('ok')
