"""What tests of the ledger write and read beside its doors."""

from __future__ import annotations

import redis

from shared.contracts import ChatRequest, Reply, Timings, Usage
from shared.ledger.records import Claim
from shared.names import Keys
from shared.settings import Settings

FAR_AWAY_MS = 10**15


def asking(message: str = "hello", **fields: object) -> ChatRequest:
    """Return a valid request."""
    return ChatRequest.model_validate({"user_id": "ann", "message": message} | fields)


def reply_to(claim: Claim, text: str = "hi there") -> Reply:
    """Return a valid reply to a claimed job."""
    request = ChatRequest.model_validate_json(claim.body)
    return Reply(
        job_id=claim.job_id,
        user_id=request.user_id,
        conversation_id=request.conversation_id,
        text=text,
        stop_reason="end_turn",
        model="test-model",
        usage=Usage(input=1, output=1),
        memory="fresh",
        attempts=claim.attempt,
        timings_ms=Timings(queued=0, recall=0, model=0, total=0),
    )


class Book:
    """Looks at the keys of one shard as they are, and makes time pass where a test says so."""

    AGENDAS = ("replies.0", "replies.3", "replies.6", "memories.0")
    PLACES = ("hinted", "waiting", "leased")

    def __init__(self, settings: Settings, shard: int = 0) -> None:
        self.redis = redis.Redis.from_url(str(settings.redis_url), decode_responses=True)
        self.keys = Keys(settings.namespace, shard)
        self._namespace = settings.namespace

    def job(self, job_id: str) -> dict[str, str]:
        """Return the record of a job."""
        return self.redis.hgetall(self.keys.job(job_id))

    def lane(self, lane: str) -> list[str]:
        """Return the job ids in a lane, in order."""
        return self.redis.zrange(f"{self.keys.root}:lane:{lane}", 0, -1)

    def places(self, name: str) -> list[tuple[str, str]]:
        """Return every (place, agenda) that a job or lane stands in."""
        return [
            (place, agenda)
            for place in self.PLACES
            for agenda in self.AGENDAS
            if self.redis.zscore(f"{self.keys.root}:{place}:{agenda}", name) is not None
        ]

    def make_due(self, name: str) -> None:
        """Let the time pass that a job's or lane's lease or pause still had."""
        for place, agenda in self.places(name):
            self.redis.zadd(f"{self.keys.root}:{place}:{agenda}", {name: 0})

    def outlive(self, job_id: str) -> None:
        """Let the time pass until a job's deadline."""
        self.redis.zadd(f"{self.keys.root}:open", {job_id: 0}, xx=True)
        self.redis.hset(self.keys.job(job_id), "deadline", 0)

    def counts(self) -> dict[str, int]:
        """Return the tallies that are not zero."""
        counts = self.redis.hgetall(f"{self.keys.root}:counts")
        return {name: int(value) for name, value in counts.items() if int(value)}

    def hints(self, queue: str) -> list[str]:
        """Return the messages in a queue's list."""
        return self.redis.lrange(f"{self._namespace}:{queue}", 0, -1)

    def drop_hints(self) -> None:
        """Purge every queue, as `celery purge` would."""
        for key in self.redis.scan_iter(f"{self._namespace}:*"):
            if "{" not in key:
                self.redis.delete(key)

    def close(self) -> None:
        """Remove everything of this namespace."""
        keys = list(self.redis.scan_iter(f"{self._namespace}:*", count=1000))
        if keys:
            self.redis.delete(*keys)
        self.redis.close()
