-- Note what became of letters of a run.
--   ARGV[2] run  [3] token of its driver  [4] 1 once the canary has passed
--   then letter as it was chosen, or '' if that was noted before, id, outcome, ...
-- Answers ok | lost (someone else drives it now). Asked twice, it is done once.
local run = ARGV[2]
if not drives(run, ARGV[3]) then return answer('lost') end

local function note(letter, id, outcome)
  redis.call('ZREM', todo_key(run), letter)
  local before = redis.call('HGET', outcomes_key(run), id)
  if before == outcome then return end
  redis.call('HSET', outcomes_key(run), id, outcome)
  redis.call('HINCRBY', run_key(run), 'n:' .. outcome, 1)
  if before then redis.call('HINCRBY', run_key(run), 'n:' .. before, -1) end
end

for i = 5, #ARGV, 3 do note(ARGV[i], ARGV[i + 1], ARGV[i + 2]) end
redis.call('HSET', run_key(run), 'seen', now)
if ARGV[4] == '1' then redis.call('HSET', run_key(run), 'passed', '1') end
return answer('ok')
