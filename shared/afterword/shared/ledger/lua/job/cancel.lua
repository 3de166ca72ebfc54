-- Cancel a job that has not ended; whoever runs it is told to stop.
--   ARGV[2] job id  [3] retention, ms  [4] stream retention, ms  [5] newest version we know
-- Answers gone | held | ended | cancelled.
local id = ARGV[2]
local state = redis.call('HGET', job_key(id), 'state')
if not state then return answer('gone') end
if newer(id, ARGV[5]) then return answer('held') end
if state == 'cancelled' then return answer('cancelled') end
if state ~= 'queued' and state ~= 'running' then return answer('ended') end
stop_job(id, 'cancelled', ARGV[3], ARGV[4])
return answer('cancelled')
