-- Hint the job of this shard that is next ahead of all other hints: those of other shards may have been sent long
-- before its own. What its own hint finds later, it drops.
---@param agenda string
-- Answers hinted | none: no job waits, or its hint is at the front.
local front = tonumber(redis.call('GET', mark_key(agenda)) or 0)
local tenant = redis.call('ZRANGE', share_key(agenda), 0, 0)[1]
local id = tenant and redis.call('ZRANGE', share_queue_key(agenda, tenant), 0, 0)[1]
local since = id and redis.call('ZSCORE', place_key('hinted', agenda), id)
if not since or tonumber(since) <= front or redis.call('HGET', job_key(id), 'state') ~= 'queued' then
  return answer('none')
end
-- Where the mark is, so that taking it up moves no mark: the hints before its own are not lost.
redis.call('ZADD', displaced_key(agenda), 'NX', since, id)
redis.call('ZADD', place_key('hinted', agenda), front, id)
redis.call('HSET', job_key(id), 'hint', id)
push_ahead(agenda, id)
return answer('hinted')
