-- End a batch: mem0 has stored it, or found nothing to store.
---@param lane string
---@param fence string
---@param id string                first turn of the batch
---@param state string             stored | nothing
---@param code string              why nothing was stored, or ''
---@param memory_ids string        JSON
---@param retention_ms integer
---@param story_ms integer         how long the story of each is kept
---@param check_after_ms integer   a batch that two writers may have added is checked after this time
---@param paid string   what the attempt has paid for facts so far, see `count_extraction`, or ''
---@param secrets {kind: string, count: string}[]   what its texts held
-- Answers ok | lost. Repeated by the same writer, it is done once.
local turn = redis.call('HMGET', job_key(id), 'turn', 'tenant', 'turn_fence', 'turn_doubtful')
if turn[1] == state and turn[3] == fence then return answer('ok') end
if not holds_lane(lane, fence) or turn[1] ~= 'writing' then return answer('lost') end
count_extraction(id, turn[2], lane, fence, paid)
local facts = #cjson.decode(memory_ids)
if facts > 0 and redis.call('HEXISTS', job_key(id), 'extraction:told') == 1 then
  for _, sums in ipairs({ job_key(id), tenant_usage_key(turn[2]), usage_key(lane) }) do
    redis.call('HINCRBY', sums, 'extraction:facts', facts)
  end
end
redis.call('HDEL', job_key(id), 'turn_intent', 'event', 'event_at', 'turn_doubtful', 'facts', 'message_batch')
if turn[4] and state == 'stored' then
  redis.call('ZADD', DUPLICATE_CHECKS, now + check_after_ms, id)
  retention_ms = math.max(retention_ms, 2 * check_after_ms)
end
local batch, found = batch_of(id), {}
for i, secret in ipairs(secrets) do found[i] = secret.kind .. ':' .. secret.count end
for _, each in ipairs(batch) do
  set_turn_state(each, turn[2], 'writing', state)
  add_step(each, 'settle', state, or_dash(code), facts, or_dash(table.concat(found, ',')))
  redis.call('HSET', job_key(each), 'turn_code', code, 'memory_ids', memory_ids, 'turn_ended', now)
  retain(each, retention_ms)
  keep_story(each, story_ms, retention_ms)
end
if code == 'no_fact' then
  redis.call('HINCRBY', COUNTS, 'facts:none:' .. turn[2], #batch)
end
for _, secret in ipairs(secrets) do
  redis.call('HINCRBY', COUNTS, 'secret:' .. secret.kind .. ':' .. turn[2], secret.count)
end
leave_lane(lane, batch, turn[2])
return answer('ok')
