"""Builds what tests of the ledger need, and inspects its keys in Redis."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from afterword.shared.contracts import ChatRequest, Reply, Timings, Usage
from afterword.shared.hints import split_agenda
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim, LaneClaim, SubmitResult
from afterword.shared.names import Keys, lane_id, memory_key, queue_list, queue_prefix
from afterword.shared.settings import Settings
from afterword.shared.transport.connection import Reconnector


def chat_request(message: str = "hello", **fields: object) -> ChatRequest:
    """Return a valid request."""
    return ChatRequest.model_validate({"user_id": "ann", "message": message} | fields)


def reply_to(claim: Claim, text: str = "hi there", **fields: Any) -> Reply:
    """Return a valid reply to a claimed job, with some fields of its own."""
    request = ChatRequest.model_validate_json(claim.body)
    given: dict[str, Any] = {
        "job_id": claim.job_id,
        "user_id": request.user_id,
        "conversation_id": request.conversation_id,
        "text": text,
        "stop_reason": "end_turn",
        "model": "test-model",
        "usage": Usage(input=1, output=1),
        "memory": "fresh",
        "attempts": claim.attempt,
        "timings_ms": Timings(queued=0, recall=0, model=0, total=0),
    }
    return Reply(**given | fields)


_tokens = (f"claim-{number}" for number in itertools.count(1))


def lane_of(user_id: str = "ann", tenant: str = "default") -> str:
    """Return the lane of a user on the first shard."""
    return lane_id(memory_key(tenant, user_id), 0)


async def submit_request(jobs: Jobs, job_id: str, request: ChatRequest) -> SubmitResult:
    """Submit one job under this id; raise what refuses it."""
    (result,) = await jobs.submit_many([(job_id, request)])
    if isinstance(result, Exception):
        raise result
    return result


def is_broken(reconnector: Reconnector) -> bool:
    """Return whether there is no connection right now."""
    return reconnector._redis is None or not reconnector._redis.open


async def submit_job(ledger: Ledger, message: str = "hello", **fields: object) -> str:
    """Submit a job and return its id."""
    request = chat_request(message, **fields)
    return (await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)).job_id


async def claim_job(ledger: Ledger, job_id: str) -> Claim:
    """Claim a job that can be claimed."""
    claimed = await ledger.jobs.claim(job_id, next(_tokens))
    assert claimed is not None
    return claimed


async def submit_and_claim(ledger: Ledger, message: str = "hello", **fields: object) -> Claim:
    """Submit a job and claim it."""
    return await claim_job(ledger, await submit_job(ledger, message, **fields))


async def submit_and_answer(ledger: Ledger, message: str = "hello", **fields: object) -> str:
    """Submit a job and answer it, so that its turn waits in its lane; return its id."""
    claimed = await submit_and_claim(ledger, message, **fields)
    await ledger.jobs.finish(claimed, reply_to(claimed))
    return claimed.job_id


async def claim_lane(ledger: Ledger, lane: str | None = None, *, max_turns: int = 20) -> LaneClaim:
    """Claim a lane that can be claimed, Ann's unless another is named."""
    taken = await ledger.turns.claim_lane(lane or lane_of(), next(_tokens), max_turns=max_turns)
    assert isinstance(taken, LaneClaim)
    return taken


async def replay_one(ledger: Ledger, turn_id: str) -> ReplayOutcome:
    """Replay a dead letter as it is now, in a run of its own."""
    letter = await ledger.dead_letters.get(turn_id)
    return await ledger.dead_letters.replay(letter.ref, next(_tokens))


@dataclass(frozen=True, slots=True)
class Records:
    """What stands in one shard: records of jobs, types of their events, and who is where."""

    jobs: dict[str, dict[str, str]]
    events: dict[str, list[str]]
    places: dict[str, list[str]]


class LedgerInspector:
    """Looks at the keys of one shard as they are, and makes time pass where a test says so."""

    AGENDAS = ("replies.0", "replies.3", "replies.6", "memories.0")
    PLACES = ("hinted", "waiting", "leased")

    def __init__(self, settings: Settings, shard: int = 0) -> None:
        # Any: redis-py annotates answers as bytes, whatever it was told to decode.
        self.redis: Any = redis.Redis.from_url(str(settings.redis_url), decode_responses=True)
        self.keys = Keys(settings.namespace, shard)
        self._namespace = settings.namespace

    def job(self, job_id: str) -> dict[str, str]:
        """Return the record of a job."""
        record: dict[str, str] = self.redis.hgetall(self.keys.job(job_id))
        return record

    def lane(self, lane: str) -> list[str]:
        """Return the job ids in a lane, in order."""
        names: list[str] = self.redis.zrange(self.keys.lane(lane), 0, -1)
        return names

    def places(self, name: str) -> list[tuple[str, str]]:
        """Return every (place, agenda) that a job or lane stands in."""
        spots = list(itertools.product(self.PLACES, self.AGENDAS))
        scores = self._all([("ZSCORE", self.keys.place(*spot), name) for spot in spots])
        return [spot for spot, score in zip(spots, scores, strict=True) if score is not None]

    def look(self, job_ids: Sequence[str]) -> Records:
        """Return the records of jobs, and where everything stands, as of one moment."""
        spots = list(itertools.product(self.PLACES, self.AGENDAS))
        count = len(job_ids)
        found = self._all(
            [("HGETALL", self.keys.job(name)) for name in job_ids]
            + [("XRANGE", self.keys.events(name), "-", "+") for name in job_ids]
            + [("ZRANGE", self.keys.place(*spot), 0, -1) for spot in spots]
        )
        places: dict[str, list[str]] = {}
        for (place, _), names in zip(spots, found[2 * count :], strict=True):
            for name in names:
                places.setdefault(name, []).append(place)
        return Records(
            jobs=dict(zip(job_ids, found[:count], strict=True)),
            events={
                name: [row["type"] for _, row in rows]
                for name, rows in zip(job_ids, found[count : 2 * count], strict=True)
            },
            places=places,
        )

    def _all(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Execute commands in one transaction and return their answers."""
        with self.redis.pipeline() as batch:
            for command in commands:
                batch.execute_command(*command)
            answers: list[Any] = batch.execute()
        return answers

    def waits_s(self, name: str) -> float:
        """Return how long a job or lane still has to wait, in seconds."""
        ((place, agenda),) = self.places(name)
        assert place == "waiting", place
        until_ms: float = self.redis.zscore(self.keys.place("waiting", agenda), name)
        now_s, microseconds = self.redis.time()
        return until_ms / 1000 - float(now_s + microseconds / 1e6)

    def open_ends(self) -> set[str]:
        """Return every job or lane that is open, placed, held or not empty."""
        found = set(self.redis.zrange(self.keys.open, 0, -1)) | set(
            self.redis.hkeys(self.keys.fences)
        )
        for agenda in self.AGENDAS:
            for place in self.PLACES:
                found.update(self.redis.zrange(self.keys.place(place, agenda), 0, -1))
        return found | set(self.redis.scan_iter(self.keys.lane("*")))

    def make_due(self, name: str) -> None:
        """Let the time pass that a job's or lane's lease or pause still had."""
        for place, agenda in self.places(name):
            self.redis.zadd(self.keys.place(place, agenda), {name: 0})

    def end_pause(self, gate: str) -> None:
        """Let the time pass that a gate was to be shut; its canary, if any, is given up."""
        key = self.keys.gate(gate)
        if self.redis.exists(key):
            self.redis.hset(key, "until", 0)
            self.redis.hdel(key, "canary", "lease", "next")

    def repairs(self) -> list[str]:
        """Return the turns that are to be looked at for doubles."""
        names: list[str] = self.redis.zrange(self.keys.duplicate_checks, 0, -1)
        return names

    def make_repairs_due(self) -> None:
        """Let the time pass until every turn is looked at for doubles."""
        self.make_all_due(self.keys.duplicate_checks)

    def make_all_due(self, key: str) -> None:
        """Let the time pass until every member of a ZSET by time is due."""
        for name in self.redis.zrange(key, 0, -1):
            self.redis.zadd(key, {name: 0})

    def outlive(self, job_id: str) -> None:
        """Let the time pass until a job's deadline."""
        self.redis.zadd(self.keys.open, {job_id: 0}, xx=True)
        self.redis.hset(self.keys.job(job_id), "deadline", 0)

    def counts(self) -> dict[str, int]:
        """Return the tallies that are not zero."""
        counts = self.redis.hgetall(self.keys.counts)
        return {name: int(value) for name, value in counts.items() if int(value)}

    def open_counts(self) -> dict[str, str]:
        """Return how much is open, by conversation, lane and ':' and tenant."""
        found: dict[str, str] = self.redis.hgetall(self.keys.open_counts)
        return found

    def expected_open_counts(self) -> dict[str, str]:
        """Return the same, as the records of the open jobs say it."""
        sums: dict[str, list[int]] = {}
        for job_id in self.redis.zrange(self.keys.open, 0, -1):
            job = self.job(job_id)
            owners = [f":{job['tenant']}", job["lane"]]
            owners += [job["conversation"]] if "conversation" in job else []
            added = (1, len(job["body"].encode()), int(job["agenda"] == "replies.0"))
            for owner in owners:
                sums[owner] = [*map(sum, zip(sums.get(owner, [0, 0, 0]), added, strict=True))]
        return {owner: " ".join(map(str, found)) for owner, found in sums.items()}

    def next_wake_s(self) -> float | None:
        """Return in how many seconds the first job or lane has waited long enough."""
        waiting = [self.keys.place("waiting", agenda) for agenda in self.AGENDAS]
        first = [
            score for key in waiting for _, score in self.redis.zrange(key, 0, 0, withscores=True)
        ]
        now_s, microseconds = self.redis.time()
        return min(first) / 1000 - float(now_s + microseconds / 1e6) if first else None

    def pass_time(self, seconds: float) -> None:
        """Let time pass for all that is hinted, waiting, leased, open or a gate in this shard."""
        for agenda in self.AGENDAS:
            for place in self.PLACES:
                self._set_back(self.keys.place(place, agenda), seconds)
            self._set_back(self.keys.displaced(agenda), seconds)
            mark = f"{queue_prefix(self._namespace)}mark:{agenda}"
            if self.redis.exists(mark):
                self.redis.decrby(mark, round(seconds * 1000))
        for job_id in self._set_back(self.keys.open, seconds):
            if self.redis.exists(self.keys.job(job_id)):
                self.redis.hincrby(self.keys.job(job_id), "deadline", -round(seconds * 1000))
        for gate in self.redis.scan_iter(self.keys.gate("*"), count=1000):
            for moment in {"until", "opened", "next", "lease", "since"} & {*self.redis.hkeys(gate)}:
                self.redis.hincrbyfloat(gate, moment, -seconds * 1000)

    def _set_back(self, zset: str, seconds: float) -> list[str]:
        names: list[str] = self.redis.zrange(zset, 0, -1)
        self._all(("ZINCRBY", zset, -seconds * 1000, name) for name in names)
        return names

    def hinted(self, agenda: str) -> list[str]:
        """Return the ids that the messages of an agenda's queue name, oldest first."""
        messages = self.redis.lrange(self.list_of(*split_agenda(agenda)), 0, -1)
        return [json.loads(json.loads(text)["body"])[0][0] for text in reversed(messages)]

    def list_of(self, queue: str, step: int = 0) -> str:
        """Return the Redis list that a queue's messages of one priority step are in."""
        return queue_list(self._namespace, queue, step)

    def pop_hint(self, agenda: str) -> str:
        """Take the oldest message out of an agenda's queue, as a worker does; return its id."""
        message = self.redis.rpop(self.list_of(*split_agenda(agenda)))
        return str(json.loads(json.loads(str(message))["body"])[0][0])

    def pop_newest_hint(self, agenda: str) -> str:
        """Take the newest message out of an agenda's queue instead; return its id."""
        message = self.redis.lpop(self.list_of(*split_agenda(agenda)))
        return str(json.loads(json.loads(str(message))["body"])[0][0])

    def events(self, job_id: str) -> list[dict[str, str]]:
        """Return what stands in a job's stream."""
        return [row for _, row in self.redis.xrange(self.keys.events(job_id))]

    def drop_hints(self) -> None:
        """Purge every queue, as `celery purge` would."""
        for queue, step in map(split_agenda, self.AGENDAS):
            self.redis.delete(self.list_of(queue, step))

    def close(self) -> None:
        """Remove everything of this namespace."""
        keys = list(self.redis.scan_iter(f"{self._namespace}:*", count=1000))
        if keys:
            self.redis.delete(*keys)
        self.redis.close()
