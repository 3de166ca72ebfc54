-- Count what is open, late and dead, in one look.
-- Answers now, jobs open, dead letters, {'<queue> <worker>', last sweep, ...},
--   {count name, value, ...}, newest version that records were held for, then per agenda: name,
--   hinted, waiting, leased, oldest hint, messages, held for a newer version
local out = { now, redis.call('ZCARD', OPEN), redis.call('ZCARD', DEAD),
  redis.call('ZRANGE', WORKERS, 0, -1, 'WITHSCORES'), redis.call('HGETALL', COUNTS),
  redis.call('GET', NEWER) or 0 }
for _, agenda in ipairs({ 'replies.0', 'replies.3', 'replies.6', LANES }) do
  local oldest = redis.call('ZRANGE', place('hinted', agenda), 0, 0, 'WITHSCORES')
  local messages = broker == '-' and -1 or redis.call('LLEN', (queue_key(agenda)))
  out[#out + 1] = { agenda, redis.call('ZCARD', place('hinted', agenda)),
    redis.call('ZCARD', place('waiting', agenda)), redis.call('ZCARD', place('leased', agenda)),
    oldest[2] or '', messages,
    redis.call('ZCOUNT', place('held', agenda), now - LISTED, '+inf') }
end
return answer(unpack(out))
