-- Put a past turn, which was answered elsewhere, at the end of its user's lane; each once.
---@param id string              job
---@param lane string
---@param tenant string
---@param version integer        version of the record
---@param body string            the request, JSON
---@param reply string           JSON
---@param key string             what tells this turn from all others of its user
---@param key_ms integer         lifetime of the keys of a user, from the last import on
---@param limit integer         most turns of the tenant in this shard that may wait to be stored
-- Answers new | same (it was imported before) | wait (too many turns are to be stored first: call again)
--   | erased (its user is about to be).
if redis.call('SISMEMBER', imported_key(lane), key) == 1 then return answer('same') end
if is_being_erased(lane) then return answer('erased') end
local waiting = redis.call('HMGET', COUNTS, 'turn:pending:' .. tenant, 'turn:writing:' .. tenant)
if (waiting[1] or 0) + (waiting[2] or 0) >= limit then return answer('wait') end

local sequence = next_sequence()
redis.call('HSET', job_key(id), 'version', version, 'state', 'succeeded', 'turn', 'pending', 'tenant', tenant,
  'lane', lane, 'agenda', 'replies.6', 'body', body, 'reply', reply, 'sequence', sequence, 'created', now,
  'deadline', now, 'ended', now, 'attempts', 0, 'imported', 1)
redis.call('SADD', imported_key(lane), key)
redis.call('PEXPIRE', imported_key(lane), key_ms)
count_state('job', tenant, nil, 'succeeded')
count_state('turn', tenant, nil, 'pending')
enter_lane(lane, id, tenant, sequence, now)
list_job(lane .. '/imported', id, sequence, key_ms)
hint_idle_lane(lane)
return answer('new')
