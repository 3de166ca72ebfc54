-- Ask whether a provider may be called now.
---@param gate string
---@param token string        names the caller: repeated with it, it is one canary
---@param canary_ms integer   lease of a canary
---@param octave_ms integer   permits double with each octave while the gate opens
-- Answers open | pass | canary, or: shut, ms until the caller's own time to retry, code.
end_slow_start(gate, octave_ms)
local record = gate_record(gate)
local canary, leased = record.canary, tonumber(record.lease or 0)

if not record['until'] then return answer('open') end
if record.opened then
  local permits = 1 + (2 ^ ((now - record.opened) / octave_ms) - 1) / math.log(2)
  if tonumber(record.granted) < permits then
    redis.call('HINCRBY', gate_key(gate), 'granted', 1)
    return answer('pass')
  end
elseif now >= tonumber(record['until']) and (canary == token or leased <= now) then
  redis.call('HSET', gate_key(gate), 'canary', token, 'lease', now + canary_ms)
  return answer('canary')
end
return answer('shut', retry_after_ms(gate, octave_ms), record.code)
