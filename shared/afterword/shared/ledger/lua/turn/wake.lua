-- Wake lanes that wait for room in a rate limit, those first that would ask next: there is much room now.
---@param lane string       has just been stored; not woken
---@param limit integer     most lanes that are looked at
-- Answers ok, how many were woken.
local woken = 0
for _, other in ipairs(redis.call('ZRANGEBYSCORE', place_key('waiting', LANES), now, '+inf', 'LIMIT', 0, limit)) do
  local oldest = other ~= lane and redis.call('ZRANGE', lane_key(other), 0, 0)[1]
  if oldest and redis.call('HGET', job_key(oldest), 'turn_code') == 'quota_used_up' then
    hint(LANES, other)
    woken = woken + 1
  end
end
return answer('ok', woken)
