-- Write a key and delete it: refused wherever a submit is refused.
-- Answers ok.
local trial = idempotency_key('')  -- no request has it
redis.call('SET', trial, now, 'PX', 1000)
redis.call('DEL', trial)
return answer('ok')
