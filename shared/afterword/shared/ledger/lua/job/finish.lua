-- Publish the reply and put the turn into its lane, in one step (I2, I3).
---@param id string                  job
---@param fence string
---@param reply string               JSON
---@param turn string                next state of the turn: pending | skipped
---@param turn_code string           why it is skipped, or ''
---@param conversation_turn string   what the conversation keeps of it, JSON, or ''
---@param max_turns integer          most turns that a conversation keeps
---@param conversation_ms integer    lifetime of a conversation
---@param retention_ms integer
---@param story_ms integer           how long its story is kept
---@param stream_ms integer          retention of the stream
---@param delta integer              number of the last delta
---@param text string                text of the last delta, or '' if all text was published before
---@param recalled string            what the attempt was given by memory, JSON, or '' if a delta brought it
---@param memory string              how memory was: fresh | overlay | degraded | off
---@param first_text integer        when the first piece of the text came, ms since the epoch; 0 if none did
---@param tokens string             what this attempt used, JSON
---@param given string              ids of the memories in the prompt, JSON, or ''
---@param note string                what the attempt did, JSON, or ''
---@param usage_ms integer           lifetime of a user's sums of usage
---@param cost integer               what this attempt cost, in millionths of a US dollar
---@param period string              of budgets, see `add_spending`
---@param usage {name: string, amount: string}[]   what this attempt adds to them
-- Answers ok | lost. Repeated by the same attempt, it is done once.
local job = redis.call('HMGET', job_key(id), 'state', 'fence', 'tenant', 'agenda', 'lane', 'turn',
  'attempts', 'conversation', 'sequence', 'created', 'story')
local tenant, lane, conversation = job[3], job[5], job[8]
if job[1] == 'succeeded' and job[2] == fence then return answer('ok') end
if job[1] ~= 'running' or job[2] ~= fence then return answer('lost') end

redis.call('HSET', job_key(id), 'reply', reply, 'ended', now, 'first_text', first_text,
  'tokens', tokens, 'story', with_step(job[11], 'reply', job[7], or_dash(note)))
redis.call('HDEL', job_key(id), 'token', 'code')
set_job_state(id, tenant, 'running', 'succeeded')
if memory == 'degraded' then redis.call('HINCRBY', COUNTS, 'reply:degraded:' .. tenant, 1) end
if text ~= '' then
  emit(id, after_recall(fence, delta), 'type', 'delta',
    with_recalled(recalled, 'attempt', job[7], 'text', text))
  recalled = ''
end
local last = recalled == '' and fence .. '-*' or after_recall(fence, 1)
emit(id, last, 'type', 'final', with_recalled(recalled, 'attempt', job[7]))
close_job(id, job[4], owners_of(lane, tenant, conversation), stream_ms)
list_job(lane, id, job[9], math.max(retention_ms, story_ms))

if given ~= '' then
  redis.call('XADD', given_key(lane), 'MINID', '~', now - retention_ms, '*', 'job', id, 'memories', given)
  redis.call('PEXPIRE', given_key(lane), retention_ms)
end

local remembered = job[6] == 'awaited' and turn == 'pending'
if remembered then
  set_turn_state(id, tenant, 'awaited', 'pending')
  enter_lane(lane, id, tenant, job[9], job[10])
  hint_idle_lane(lane)
else
  if job[6] == 'awaited' then
    set_turn_state(id, tenant, 'awaited', 'skipped')
    redis.call('HSET', job_key(id), 'turn_code', turn_code)
    redis.call('ZREM', lane_key(lane), id)
    if redis.call('EXISTS', lane_key(lane)) == 1 then hint_idle_lane(lane) end
  end
  retain(id, retention_ms)
  keep_story(id, story_ms, retention_ms)
end

if conversation and conversation_turn ~= '' then
  add_to_history(conversation, conversation_turn, max_turns, conversation_ms)
end

for _, sums in ipairs({ tenant_usage_key(tenant), usage_key(lane) }) do
  for _, added in ipairs(usage) do redis.call('HINCRBY', sums, added.name, added.amount) end
end
redis.call('PEXPIRE', usage_key(lane), usage_ms)
local spent = 0
for _, added in ipairs(usage) do spent = spent + (added.name ~= 'replies' and added.amount or 0) end
add_spending({ ':' .. tenant, lane }, period, cost, spent, usage_ms)
return answer('ok')
