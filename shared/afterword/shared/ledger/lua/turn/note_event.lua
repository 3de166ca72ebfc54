-- Keep mem0's event id of a batch that is being stored, so that nobody adds it again; once that
-- event is over, forget it.
--   ARGV[2] lane id  [3] fence  [4] first turn of the batch  [5] event id, or ''
-- Answers ok | lost.
local id, event = ARGV[4], ARGV[5]
if not holds_lane(ARGV[2], ARGV[3]) then return answer('lost') end
if event == '' then
  redis.call('HDEL', job_key(id), 'event', 't_event_at')
elseif redis.call('HGET', job_key(id), 'event') ~= event then
  redis.call('HSET', job_key(id), 'event', event, 't_event_at', now)
end
return answer('ok')
