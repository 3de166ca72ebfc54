-- Give up a dead letter for good.
--   ARGV[2] job id  [3] memory | reply  [4] how often it was replayed before it was chosen
--   [5] retention, ms  [6] newest version we know
-- Answers gone | refused (it is no dead letter, another one by now, or newer) | discarded.
local id, kind = ARGV[2], ARGV[3]
local job = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'state', 'replays', 'replayed_as',
  'discarded', 'body')
if not job[1] then return answer('gone') end
if newer(id, ARGV[6]) then return answer('refused') end

local function memory()
  if job[1] ~= 'dead' or (job[4] or '0') ~= ARGV[4] then return false end
  set_turn(id, job[2], 'dead', 'skipped')
  redis.call('HSET', job_key(id), 't_code', 'discarded')
  redis.call('HDEL', job_key(id), 'facts')
  redis.call('ZREM', DEAD, id)
  return true
end

-- The first release listed no failed jobs; one whose body is gone was erased.
local function reply()
  if job[3] ~= 'failed' or job[5] or job[6] or not job[7] then return false end
  redis.call('ZREM', FAILED, id)
  redis.call('HSET', job_key(id), 'discarded', now)
  return true
end

local done
if kind == 'memory' then done = memory() else done = reply() end
if not done then return answer('refused') end
retain(id, ARGV[5])
return answer('discarded')
