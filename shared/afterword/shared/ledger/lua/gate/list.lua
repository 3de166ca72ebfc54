-- List the gates that are not open.
--   ARGV[2] octave, ms
-- Answers now, then per gate: name, shut | opening, code, fault, since, until.
local out = { now }
for _, name in ipairs(redis.call('SMEMBERS', GATES)) do
  end_slow_start(name, ARGV[2])
  local gate = redis.call('HMGET', gate_key(name), 'until', 'opened', 'code', 'fault', 'since')
  if not gate[1] then
    open_gate(name)
  elseif gate[2] then
    out[#out + 1] = { name, 'opening', gate[3], gate[4], gate[5], gate[2] + OCTAVES * ARGV[2] }
  else
    out[#out + 1] = { name, 'shut', gate[3], gate[4], gate[5], gate[1] }
  end
end
return answer(unpack(out))
