-- Keep which dead letters a run is to replay. They expire if the run does not begin.
---@param run string
---@param lifetime_ms integer
---@param letters {place: string, letter: string}[]
-- Answers ok.
for _, chosen in ipairs(letters) do redis.call('ZADD', todo_key(run), chosen.place, chosen.letter) end
redis.call('PEXPIRE', todo_key(run), lifetime_ms)
return answer('ok')
