-- Extend the leases a worker holds.
--   ARGV[2] lease, ms  then per lease: [n] job id or lane id  [n+1] fence
-- Answers the ids of those it holds no longer.
local lost = {}
for i = 3, #ARGV, 2 do
  local id, fence = ARGV[i], ARGV[i + 1]
  if string.sub(id, 1, 1) == 'l' then
    if holds_lane(id, fence) then
      redis.call('ZADD', place('leased', LANES), 'XX', now + ARGV[2], id)
    else
      lost[#lost + 1] = id
    end
  elseif holds_job(id, fence) then
    local agenda = redis.call('HGET', job_key(id), 'agenda')
    redis.call('ZADD', place('leased', agenda), 'XX', now + ARGV[2], id)
  else
    lost[#lost + 1] = id
  end
end
return answer(unpack(lost))
