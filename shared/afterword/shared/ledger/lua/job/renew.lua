-- Extend leases that a worker holds.
---@param lease_ms integer
---@param leases {id: string, fence: string}[]   job ids or lane ids
-- Answers the ids that the worker no longer holds.
local lost = {}
for _, held in ipairs(leases) do
  if string.sub(held.id, 1, 1) == 'l' then
    if holds_lane(held.id, held.fence) then
      redis.call('ZADD', place_key('leased', LANES), 'XX', now + lease_ms, held.id)
    else
      lost[#lost + 1] = held.id
    end
  elseif holds_job(held.id, held.fence) then
    local agenda = redis.call('HGET', job_key(held.id), 'agenda')
    redis.call('ZADD', place_key('leased', agenda), 'XX', now + lease_ms, held.id)
  else
    lost[#lost + 1] = held.id
  end
end
return answer(lost)
