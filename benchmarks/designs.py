"""The designs that are compared: how each is started, fed, watched and checked."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from redis import Redis

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys, shard_in
from afterword.shared.settings import Settings
from benchmarks.peers.jobs import ANSWERED, IN_FLIGHT, jobs, reply_key, turns_key
from benchmarks.provider import MEMORIES
from benchmarks.stage import Crew, Stage


class Design(Protocol):
    """One way to do the job."""

    name: str
    crew: Crew
    stage: Stage

    def submit(self, run: str, count: int) -> None:
        """Queue `count` jobs; whoever does them stands still."""
        ...

    def answered(self) -> int:
        """Return how many jobs have been answered and recorded so far."""
        ...

    def check(self, run: str, count: int) -> None:
        """Fail unless each job of a run was answered once and its turn recorded once."""
        ...


class Peer:
    """A program of `benchmarks.peers`, on a database of its own."""

    def __init__(
        self,
        stage: Stage,
        name: str,
        module: str,
        *arguments: str,
        database: int,
        python: str = sys.executable,
        in_flight: int = IN_FLIGHT,
    ) -> None:
        """Start its worker."""
        self.name = name
        self.stage = stage
        self._command = (python, "-m", f"benchmarks.peers.{module}")
        self._environ = {
            "BENCH_REDIS": stage.redis(database),
            "BENCH_PROVIDER": stage.provider,
            "BENCH_IN_FLIGHT": str(in_flight),
            "MEM0_TELEMETRY": "False",
            "MEM0_DIR": str(stage.folder / "mem0"),
            "PYTHONPATH": os.getcwd(),  # noqa: PTH109 where both environments find the programs
        }
        self._redis: Any = Redis.from_url(stage.redis(database), decode_responses=True)
        self.crew = stage.crew([*self._command, "work", *arguments], self._environ)

    def submit(self, run: str, count: int) -> None:
        """Queue jobs through the peer's own client."""
        argv = [*self._command, "submit", run, str(count)]
        subprocess.run(argv, env=os.environ | self._environ, check=True)  # noqa: S603 our own

    def answered(self) -> int:
        """Return how many were recorded."""
        return int(self._redis.get(ANSWERED) or 0)

    def check(self, run: str, count: int) -> None:
        """Look at every reply and every turn, and remove them."""
        for job, user, message in jobs(run, count):
            reply, turns = (
                self._redis.get(reply_key(job)),
                self._redis.lrange(turns_key(user), 0, -1),
            )
            assert reply, f"{self.name}: {job} has no reply"
            assert [json.loads(turn)["user"] for turn in turns] == [message], f"{self.name}: {job}"
            self._redis.delete(reply_key(job), turns_key(user))


#: The least that a job can cost.
FLOOR = "two bare SDK calls"


class Floor(Peer):
    """The two SDK calls: they record nothing, so there is nothing to check but their number."""

    def check(self, run: str, count: int) -> None:
        """Trust the count: a call that fails ends the program."""


class Afterword:
    """A worker as it is deployed, on mem0's platform; of responses, if nothing else is said."""

    name = "Afterword"

    def __init__(
        self,
        stage: Stage,
        database: int,
        in_flight: int = IN_FLIGHT,
        name: str = name,
        environ: Mapping[str, str] = MappingProxyType({}),
        queue: str = "replies",
    ) -> None:
        """Start it, with further settings of its own, for that kind of work."""
        self.name = name
        self.stage = stage
        self.environ = {
            "AFTERWORD_REDIS_URL": stage.redis(database),
            "AFTERWORD_MEMORY": "hosted",
            "AFTERWORD_CONCURRENCY": str(in_flight),
            "AFTERWORD_RECALL_BUDGET_MS": "60000",  # every job is to be the whole job
            "AFTERWORD_SUBMIT_TIMEOUT_S": "30",  # a busy machine is slow, not broken
            "AFTERWORD_DATA_DIR": str(stage.folder / "data"),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": stage.provider,
            "MEM0_API_KEY": "test-key",
            "MEM0_HOST": stage.provider,
            **environ,
        }
        self.settings = Settings.load(self.environ)
        self._redis: Any = Redis.from_url(stage.redis(database), decode_responses=True)
        self._jobs: dict[str, list[AsyncJob]] = {}
        argv = [sys.executable, "-m", "celery", "-A", "afterword.workers.app:app", "worker"]
        self.crew = stage.crew([*argv, "-Q", queue, "--loglevel", "ERROR"], self.environ)

    def submit(self, run: str, count: int) -> None:
        """Queue jobs through the producer."""
        self._jobs[run] = asyncio.run(self._submit(run, count))

    def answered(self) -> int:
        """Return how many jobs have succeeded."""
        return self.counted("job:succeeded")

    def counted(self, what: str) -> int:
        """Return how many jobs or turns the ledger counts in a state, `turn:stored` say."""
        return int(self._redis.hget("afterword:{00}:counts", f"{what}:default") or 0)

    def check(self, run: str, count: int) -> None:
        """Look at every job: its reply, that its memory was read, and its turn in the lane."""
        done = self._jobs.pop(run)
        assert len({job.id for job in done}) == count, "a job was accepted twice"
        self.check_each(job.id for job in done)

    def check_each(self, job_ids: Iterable[str]) -> None:
        """Do the same for jobs that somebody else has submitted, each for a user of its own."""
        for job_id in job_ids:
            self._check(job_id)

    def _check(self, job_id: str) -> None:
        keys = Keys(self.settings.namespace, shard_in(job_id))
        state, turn, text, lane = self._redis.hmget(
            keys.job(job_id), "state", "turn", "reply", "lane"
        )
        assert (state, turn) == (JobState.SUCCEEDED, TurnState.PENDING), f"{job_id}: {state} {turn}"
        reply: dict[str, Any] = json.loads(text)
        assert reply["memory"] == "fresh", f"{job_id}: {reply['memory']}"
        assert len(reply["memories"]) == MEMORIES, f"{job_id}: memories are missing"
        queued: list[str] = self._redis.zrange(f"{keys.root}:lane:{lane}", 0, -1)
        assert queued == [job_id], f"{job_id}: not in its lane"

    async def _submit(self, run: str, count: int) -> list[AsyncJob]:
        asked = [{"user_id": user, "message": said} for _, user, said in jobs(run, count)]
        async with AsyncProducer(self.settings) as producer:
            results = await producer.submit_many(asked)
        for one in results:
            if isinstance(one, Exception):
                raise one
        return [one for one in results if isinstance(one, AsyncJob)]


def local(stage: Stage) -> list[Design]:
    """Return what needs nothing but this project's own environment."""
    return [
        Afterword(stage, 0),
        Floor(stage, FLOOR, "floor", database=1),
        Peer(stage, "hand-written loop", "loop", database=2),
        Peer(
            stage, f"Celery, {IN_FLIGHT} threads", "celery_app",
            "-P", "threads", "-c", str(IN_FLIGHT), database=3,
        ),
        Peer(
            stage, "Celery prefork, 8", "celery_app",
            "-P", "prefork", "-c", "8", database=4,
        ),
    ]  # fmt: skip


#: Engines that are installed for this only, see the group `bench-peers`.
_OTHERS: dict[str, tuple[str, ...]] = {
    "taskiq": ("taskiq_app",),
    "arq": ("arq_app",),
    "SAQ": ("saq_app",),
    "docket": ("docket_app",),
    "streaQ": ("streaq_app",),
    f"dramatiq, {IN_FLIGHT} threads": ("dramatiq_app",),
    f"Celery gevent, {IN_FLIGHT}": ("celery_app", "-P", "gevent", "-c", str(IN_FLIGHT)),
}


def others(stage: Stage, python: str) -> list[Design]:
    """Return the engines that live in the environment of another Python."""
    return [
        Peer(stage, name, *argv, database=number, python=python)
        for number, (name, argv) in enumerate(_OTHERS.items(), start=5)
    ]
