-- Delete whole records of an erased user: conversations, sums of usage.
---@param lane string
---@param fence string
---@param keys string[]
-- Answers ok | lost. The receipt counts what was found.
if not holds_lane(lane, fence) then return answer('lost') end
for _, key in ipairs(keys) do
  redis.call('HINCRBY', erasure_key(lane), 'records', redis.call('UNLINK', key))
end
return answer('ok')
