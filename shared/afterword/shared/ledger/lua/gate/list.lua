-- List the gates that are not open.
---@param octave_ms integer
-- Answers a list of gates, each {name, shut | opening, code, fault, since, until}.
local gates = {}
for _, name in ipairs(redis.call('SMEMBERS', GATES)) do
  end_slow_start(name, octave_ms)
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'code', 'fault', 'since')
  if not gate[1] then
    open_gate(name)
  elseif gate[2] then
    gates[#gates + 1] = { name, 'opening', gate[3], gate[4], gate[5], gate[2] + OCTAVES * octave_ms }
  else
    gates[#gates + 1] = { name, 'shut', gate[3], gate[4], gate[5], gate[1] }
  end
end
return answer(gates)
