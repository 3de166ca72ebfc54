-- Cancel a job that has not ended; a worker that runs it is told to stop. What the user said is kept.
---@param id string               job
---@param known_version integer   newest version of records that the caller knows
---@param retention_ms integer
---@param stream_ms integer       retention of the stream
---@param max_turns integer       most turns that a conversation keeps
---@param conversation_ms integer   lifetime of a conversation
-- Answers gone | held | ended | cancelled.
local state = redis.call('HGET', job_key(id), 'state')
if not state then return answer('gone') end
if newer_version(id, known_version) then return answer('held') end
if state == 'cancelled' then return answer('cancelled') end
if state ~= 'queued' and state ~= 'running' then return answer('ended') end
keep_what_was_said(id, max_turns, conversation_ms)
stop_job(id, 'cancelled', retention_ms, stream_ms)
return answer('cancelled')
