-- Say how a batch ended: mem0 has it, or had nothing to keep, or policy skipped it.
--   ARGV[2] lane id  [3] fence  [4] first turn of the batch  [5] stored | nothing | skipped
--   [6] why, or ''  [7] memory ids, JSON  [8] retention, ms  [9] ms after which a batch that more than
--   one writer may have added is looked at again
-- Answers ok | lost. Asked twice by the same writer, it is done once.
local lane, fence, id = ARGV[2], ARGV[3], ARGV[4]
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 't_fence', 't_doubt')
if turn[1] == ARGV[5] and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
redis.call('HDEL', job_key(id), 't_open', 'event', 't_event_at', 't_doubt', 'facts')
local retention = tonumber(ARGV[8])
if turn[4] and ARGV[5] == 'stored' then
  redis.call('ZADD', REPAIRS, now + ARGV[9], id)
  retention = math.max(retention, 2 * ARGV[9])
end
for _, each in ipairs(batch_of(id)) do
  set_turn(each, turn[2], 'writing', ARGV[5])
  redis.call('HSET', job_key(each), 't_code', ARGV[6], 'memory_ids', ARGV[7], 't_ended', now)
  leave_lane(lane, each, turn[2])
  retain(each, retention)
end
return answer('ok')
