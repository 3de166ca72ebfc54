-- Ask whether a provider may be asked now: one look at its gate.
--   ARGV[2] gate  [3] token of this asker: asked twice, it is one canary  [4] lease of a canary, ms
--   [5] octave, ms: permits double with each one while the gate opens
-- Answers open | pass | canary, or: shut, ms until the asker's own time to come back, code.
local name, token, octave = ARGV[2], ARGV[3], tonumber(ARGV[5])
end_slow_start(name, octave)
local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'canary', 'lease', 'granted', 'code')
local shut_until, opened, canary, lease = gate[1], gate[2], gate[3], tonumber(gate[4] or 0)

if not shut_until then return answer('open') end
if opened then
  local permits = 1 + (2 ^ ((now - opened) / octave) - 1) / math.log(2)
  if tonumber(gate[5]) < permits then
    redis.call('HINCRBY', gate_key(name), 'granted', 1)
    return answer('pass')
  end
elseif now >= tonumber(shut_until) and (canary == token or lease <= now) then
  redis.call('HSET', gate_key(name), 'canary', token, 'lease', now + ARGV[4])
  return answer('canary')
end
return answer('shut', comeback(name, octave), gate[6])
