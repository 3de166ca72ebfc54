-- Remove whole records of an erased user: conversations, sums.
--   ARGV[2] lane id  [3] fence  then keys
-- Answers ok | lost. What was found is counted on the receipt.
local lane, fence = ARGV[2], ARGV[3]
if not holds_lane(lane, fence) then return answer('lost') end
for i = 4, #ARGV do
  redis.call('HINCRBY', erasure_key(lane), 'records', redis.call('UNLINK', ARGV[i]))
end
return answer('ok')
