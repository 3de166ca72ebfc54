-- Record what became of dead letters of a replay run.
---@param run string
---@param token string            names the driver of the run
---@param canary_passed boolean
---@param outcomes {letter: string, id: string, outcome: string}[]   the letter as it was chosen, or ''
-- if it was recorded before.
-- Answers ok | lost (another driver has taken the run over). Repeated, it is done once.
if not drives_run(run, token) then return answer('lost') end

local function record(letter, id, outcome)
  redis.call('ZREM', todo_key(run), letter)
  local before = redis.call('HGET', outcomes_key(run), id)
  if before == outcome then return end
  redis.call('HSET', outcomes_key(run), id, outcome)
  redis.call('HINCRBY', run_key(run), 'count:' .. outcome, 1)
  if before then redis.call('HINCRBY', run_key(run), 'count:' .. before, -1) end
end

for _, each in ipairs(outcomes) do record(each.letter, each.id, each.outcome) end
redis.call('HSET', run_key(run), 'updated', now)
if canary_passed then redis.call('HSET', run_key(run), 'canary_passed', 1) end
return answer('ok')
