-- Hint a request about memories again, if an older worker took it for a lane without turns.
---@param id string
-- Answers ok.
local request = redis.call('HMGET', memory_request_key(id), 'version', 'answer')
if request[1] and not request[2] and not is_placed(LANES, id) then hint_ahead(id) end
return answer('ok')
