-- List the gates that are not open.
---@param octave_ms integer
-- Answers a list of gates, each {name, shut | opening, code, fault, since, until, untested}: untested
-- is for how many ms a call could have tested whether the provider is back, and none did.
local gates = {}
for _, name in ipairs(redis.call('SMEMBERS', GATES)) do
  end_slow_start(name, octave_ms)
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'code', 'fault', 'since', 'lease')
  if not gate[1] then
    open_gate(name)
  elseif gate[2] then
    gates[#gates + 1] = { name, 'opening', gate[3], gate[4], gate[5], gate[2] + OCTAVES * octave_ms, 0 }
  else
    local untested = now - math.max(gate[1], gate[6] or 0)
    gates[#gates + 1] = { name, 'shut', gate[3], gate[4], gate[5], gate[1], math.max(untested, 0) }
  end
end
return answer(gates)
