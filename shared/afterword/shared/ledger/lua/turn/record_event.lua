-- Keep mem0's event id of a batch that is being stored, so that nobody adds the batch again. An empty
-- id removes it: that event is over.
---@param lane string
---@param fence string
---@param id string      first turn of the batch
---@param event string   mem0's event id, or ''
-- Answers ok | lost.
if not holds_lane(lane, fence) then return answer('lost') end
if event == '' then
  redis.call('HDEL', job_key(id), 'event', 'event_at')
elseif redis.call('HGET', job_key(id), 'event') ~= event then
  redis.call('HSET', job_key(id), 'event', event, 'event_at', now)
end
return answer('ok')
