-- Return what became of dead letters that a run has replayed.
---@param run string
---@param ids string[]   jobs
-- Answers a list with a word for each: waiting | stored | nothing | skipped | dead | erased; for a job
--   that was replayed as another one answered | dead | cancelled; gone if there is no record any more.
local SETTLED = { stored = 1, nothing = 1, skipped = 1, dead = 1, erased = 1 }
local OUTCOMES = { succeeded = 'answered', failed = 'dead', expired = 'dead', cancelled = 'cancelled' }

-- A turn that another run has replayed since must have been a dead letter in between.
local function of_turn(job)
  if SETTLED[job[1]] then return job[1] end
  return job[4] == run and 'waiting' or 'dead'
end

local function of_job(job)
  if not job[3] then return 'erased' end
  local state = redis.call('HGET', job_key(job[3]), 'state')
  return state and (OUTCOMES[state] or 'waiting') or 'gone'
end

local words = {}
for _, id in ipairs(ids) do
  local job = redis.call('HMGET', job_key(id), 'turn', 'state', 'replayed_as', 'run')
  if not job[2] then
    words[#words + 1] = 'gone'
  else
    words[#words + 1] = job[2] == 'failed' and of_job(job) or of_turn(job)
  end
end
return answer(words)
