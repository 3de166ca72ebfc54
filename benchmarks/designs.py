"""The designs that are compared: how each is started, given jobs, watched and checked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from redis import Redis

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.ledger.records import moment
from afterword.shared.ledger.story_records import StepKind
from afterword.shared.ledger.story_steps import read_story
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys, shard_in
from afterword.shared.settings import Settings
from benchmarks.peers.jobs import ANSWERED, IN_FLIGHT, jobs, reply_key, turns_key
from benchmarks.provider import MEMORIES
from benchmarks.testbed import MeasuredProcess, Testbed


class Design(Protocol):
    """One way to process the jobs."""

    name: str
    process: MeasuredProcess
    testbed: Testbed

    def submit(self, run: str, count: int) -> None:
        """Queue `count` jobs; the process of the design is paused meanwhile."""
        ...

    def answered(self) -> int:
        """Return how many jobs have been answered and recorded so far."""
        ...

    def check(self, run: str, count: int) -> None:
        """Fail unless each job of a run was answered once and its turn recorded once."""
        ...


class Peer:
    """A program of `benchmarks.peers`, on its own Redis database."""

    def __init__(
        self,
        testbed: Testbed,
        name: str,
        module: str,
        *arguments: str,
        database: int,
        python: str = sys.executable,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        self.name = name
        self.testbed = testbed
        self._command = (python, "-m", f"benchmarks.peers.{module}")
        self._environ = {
            "BENCH_REDIS": testbed.redis(database),
            "BENCH_PROVIDER": testbed.provider,
            "BENCH_IN_FLIGHT": str(in_flight),
            "MEM0_TELEMETRY": "False",
            "MEM0_DIR": str(testbed.folder / "mem0"),
            "PYTHONPATH": os.getcwd(),  # noqa: PTH109 both environments find the programs there
        }
        self._redis: Any = Redis.from_url(testbed.redis(database), decode_responses=True)
        self.process = testbed.start([*self._command, "work", *arguments], self._environ)

    def submit(self, run: str, count: int) -> None:
        """Queue jobs through the client library of the peer."""
        argv = [*self._command, "submit", run, str(count)]
        subprocess.run(argv, env=os.environ | self._environ, check=True)  # noqa: S603 our own

    def answered(self) -> int:
        """Return how many jobs were recorded."""
        return int(self._redis.get(ANSWERED) or 0)

    def check(self, run: str, count: int) -> None:
        """Check and delete every reply and every turn."""
        for job, user, message in jobs(run, count):
            reply, turns = (
                self._redis.get(reply_key(job)),
                self._redis.lrange(turns_key(user), 0, -1),
            )
            assert reply, f"{self.name}: {job} has no reply"
            assert [json.loads(turn)["user"] for turn in turns] == [message], f"{self.name}: {job}"
            self._redis.delete(reply_key(job), turns_key(user))


#: The baseline: the least that a job can cost.
BARE_CALLS = "two bare SDK calls"


class BareCalls(Peer):
    """Only the SDK calls of a job. They record nothing, so only their number can be checked."""

    def check(self, run: str, count: int) -> None:
        """Check nothing more: a call that fails ends the program."""


class Afterword:
    """A worker as it is deployed, on mem0's platform; it replies unless `queue` is `memories`."""

    name = "Afterword"

    def __init__(
        self,
        testbed: Testbed,
        database: int,
        in_flight: int = IN_FLIGHT,
        name: str = name,
        environ: Mapping[str, str] = MappingProxyType({}),
        queue: str = "replies",
    ) -> None:
        self.name = name
        #: How many replies came without memory, by reason; an error unless `counts_degraded`.
        self.degraded: Counter[str] = Counter()
        self.counts_degraded = False
        self.testbed = testbed
        self.environ = {
            "AFTERWORD_REDIS_URL": testbed.redis(database),
            "AFTERWORD_MEMORY": "hosted",
            "AFTERWORD_CONCURRENCY": str(in_flight),
            "AFTERWORD_RECALL_BUDGET_MS": "60000",  # no job may go without its memories
            "AFTERWORD_SUBMIT_TIMEOUT_S": "30",  # a busy machine is slow, not broken
            "AFTERWORD_DATA_DIR": str(testbed.folder / "data"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": testbed.provider,
            "MEM0_API_KEY": "test-key",
            "MEM0_HOST": testbed.provider,
            **environ,
        }
        self.settings = Settings.load(self.environ)
        self._redis: Any = Redis.from_url(testbed.redis(database), decode_responses=True)
        self._jobs: dict[str, list[AsyncJob]] = {}
        argv = [sys.executable, "-m", "celery", "-A", "afterword.workers.app:app", "worker"]
        self.process = testbed.start([*argv, "-Q", queue, "--loglevel", "ERROR"], self.environ)

    def submit(self, run: str, count: int) -> None:
        """Queue jobs through the producer."""
        self._jobs[run] = asyncio.run(self._submit(run, count))

    def answered(self) -> int:
        """Return how many jobs have succeeded."""
        return self.count_in_ledger("job:succeeded")

    def count_in_ledger(self, what: str) -> int:
        """Return how many jobs or turns the ledger counts in a state, such as `turn:stored`."""
        return int(self._redis.hget("afterword:{00}:counts", f"{what}:default") or 0)

    def check(self, run: str, count: int) -> None:
        """Check the reply, the memories and the lane of every job."""
        done = self._jobs.pop(run)
        assert len({job.id for job in done}) == count, "a job was accepted twice"
        self.check_each(job.id for job in done)

    def check_each(self, job_ids: Iterable[str]) -> None:
        """Do the same for jobs submitted elsewhere, each for a user of its own."""
        degraded = Counter(why for job_id in job_ids if (why := self._check(job_id)))
        self.degraded += degraded
        assert self.counts_degraded or not degraded, f"{self.name}: no memory: {degraded}"

    def _check(self, job_id: str) -> str:
        """Check one job; return why its reply came without memory, else ""."""
        keys = Keys(self.settings.namespace, shard_in(job_id))
        state, turn, text, lane, story = self._redis.hmget(
            keys.job(job_id), "state", "turn", "reply", "lane", "story"
        )
        assert (state, turn) == (JobState.SUCCEEDED, TurnState.PENDING), f"{job_id}: {state} {turn}"
        queued: list[str] = self._redis.zrange(keys.lane(lane), 0, -1)
        assert queued == [job_id], f"{job_id}: not in its lane"
        reply: dict[str, Any] = json.loads(text)
        if reply["memory"] != "fresh":
            return why_degraded(story) or reply["memory"]
        assert len(reply["memories"]) == MEMORIES, f"{job_id}: memories are missing"
        return ""

    async def _submit(self, run: str, count: int) -> list[AsyncJob]:
        asked = [{"user_id": user, "message": said} for _, user, said in jobs(run, count)]
        async with AsyncProducer(self.settings) as producer:
            results = await producer.submit_many(asked)
        for one in results:
            if isinstance(one, Exception):
                raise one
        return [one for one in results if isinstance(one, AsyncJob)]


def why_degraded(story: str) -> str:
    """Return why the last search of memory failed, from the story of a job; "" if it did not."""
    steps = read_story(story, moment(0)).steps
    return next((one.reason for one in reversed(steps) if one.kind is StepKind.RECALLED), "")


def local(testbed: Testbed) -> list[Design]:
    """Return the designs that run in the environment of this project."""
    return [
        Afterword(testbed, 0),
        BareCalls(testbed, BARE_CALLS, "bare_calls", database=1),
        Peer(testbed, "hand-written loop", "loop", database=2),
        Peer(
            testbed, f"Celery, {IN_FLIGHT} threads", "celery_app",
            "-P", "threads", "-c", str(IN_FLIGHT), database=3,
        ),
        Peer(
            testbed, "Celery prefork, 8", "celery_app",
            "-P", "prefork", "-c", "8", database=4,
        ),
    ]  # fmt: skip


#: Engines of the dependency group `bench-peers`: program and arguments.
_OTHERS: dict[str, tuple[str, ...]] = {
    "taskiq": ("taskiq_app",),
    "arq": ("arq_app",),
    "SAQ": ("saq_app",),
    "docket": ("docket_app",),
    "streaQ": ("streaq_app",),
    f"dramatiq, {IN_FLIGHT} threads": ("dramatiq_app",),
    f"Celery gevent, {IN_FLIGHT}": ("celery_app", "-P", "gevent", "-c", str(IN_FLIGHT)),
}


def others(testbed: Testbed, python: str) -> list[Design]:
    """Return the engines that are installed for another Python."""
    return [
        Peer(testbed, name, *argv, database=number, python=python)
        for number, (name, argv) in enumerate(_OTHERS.items(), start=5)
    ]
