-- End a running job without a reply.
--   ARGV[2] job id  [3] fence  [4] code  [5] retention, ms  [6] stream retention, ms
--   [7] whose failure it was  [8] version of the worker
-- Answers ok | lost. Asked twice by the same attempt, it is done once.
local id, fence = ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'state', 'fence')
if job[1] == 'failed' and job[2] == fence then return answer('ok') end
if not holds_job(id, fence) then return answer('lost') end
redis.call('HSET', job_key(id), 'fault', ARGV[7], 'worker', ARGV[8])
redis.call('HSETNX', job_key(id), 'first_failed', now)
end_job(id, 'failed', ARGV[4], ARGV[5], ARGV[6])
return answer('ok')
