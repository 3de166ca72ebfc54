"""How long the one job of a tenant waits behind another tenant's, with real workers.

Each design has one worker process with as many slots, on the measured core, and answers with a
stand-in of Claude that takes about a second. First tenant B's job is answered alone; then tenant A
queues many jobs, and while those are answered B sends one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from celery import Celery
from redis import Redis

from afterword.producer import AsyncProducer
from benchmarks import designs
from benchmarks.peers.jobs import ANSWERED, jobs, reply_key
from benchmarks.provider import AnswerTiming
from benchmarks.testbed import MeasuredProcess, Testbed

#: What Claude takes, in ms: 800 to 1,200.
_TIMING = AnswerTiming(model_ms=800, spread_ms=400)

_SLOTS, _USERS, _AT_ONCE = 40, 100, 1000
_PATIENCE_S, _POLL_S = 300.0, 0.005

#: B's jobs before A comes; and beside A's, one after the other.
_ALONE, _BESIDE = 3, 10


@dataclass(frozen=True)
class Delay:
    """What one design did to B's jobs: seconds to a reply, and A's jobs answered meanwhile."""

    name: str
    queued: int
    alone_s: float
    beside_s: float
    longest_s: float
    answered: int

    @property
    def added_s(self) -> float:
        """Return how much longer B waited because of A."""
        return max(0.0, self.beside_s - self.alone_s)


class LoadedDesign(Protocol):
    """A queue with a real worker."""

    name: str
    worker: MeasuredProcess

    async def fill(self, count: int) -> None:
        """Queue jobs of A."""
        ...

    async def ask(self) -> None:
        """Send one job of B, and wait until it is answered."""
        ...

    def answered(self) -> int:
        """Return how many jobs of A have been answered."""
        ...


class LoadedAfterword:
    """A response worker; with `one_tenant`, B's user is one of A's: first in, first out."""

    name = "Afterword"

    def __init__(self, testbed: Testbed, database: int, *, one_tenant: bool = False) -> None:
        if one_tenant:
            self.name = "Afterword, all in one tenant"
        environ = {"AFTERWORD_MAX_QUEUED": "1000000", "AFTERWORD_DURABILITY": "none"}
        for what in ("OPEN_PER_USER", "OPEN_PER_TENANT", "BYTES_PER_USER", "BYTES_PER_TENANT"):
            environ[f"AFTERWORD_MAX_{what}"] = "0"
        self._design = designs.Afterword(testbed, database, _SLOTS, environ=environ)
        self._other = "a" if one_tenant else "b"
        self._redis: Any = Redis.from_url(testbed.redis(database), decode_responses=True)
        self.worker = self._design.process

    async def fill(self, count: int) -> None:
        """Queue jobs of a hundred users of A."""
        async with AsyncProducer(self._design.settings) as producer:
            for start in range(0, count, _AT_ONCE):
                numbers = range(start, min(start + _AT_ONCE, count))
                asked = [
                    {"user_id": f"user-{number % _USERS}", "message": "hello", "tenant": "a"}
                    for number in numbers
                ]
                for one in await producer.submit_many(asked):
                    if isinstance(one, Exception):
                        raise one

    async def ask(self) -> None:
        """Send one job of B, and follow it."""
        async with AsyncProducer(self._design.settings) as producer:
            job = await producer.submit(user_id="ben", message="hello", tenant=self._other)
            await job.wait(timeout=_PATIENCE_S)

    def answered(self) -> int:
        """Return how many jobs of A have succeeded."""
        return int(self._redis.hget("afterword:{00}:counts", "job:succeeded:a") or 0)


class LoadedCelery:
    """Celery as it comes, with threads: one queue, and messages in their order."""

    name = "plain Celery"

    def __init__(self, testbed: Testbed, database: int) -> None:
        self._design = designs.Peer(
            testbed, self.name, "celery_app", "-P", "threads", "-c", str(_SLOTS),
            database=database, in_flight=_SLOTS,
        )  # fmt: skip
        self._app = Celery("peer", broker=testbed.redis(database))
        self._redis: Any = Redis.from_url(testbed.redis(database), decode_responses=True)
        self.worker = self._design.process
        self._asked = 0

    async def fill(self, count: int) -> None:
        """Send a task for each job of A."""
        await asyncio.to_thread(self._design.submit, "a", count)

    async def ask(self) -> None:
        """Send one task of B, and look for its reply until it is there."""
        self._asked += 1
        (arguments,) = jobs(f"b{self._asked}", 1)
        await asyncio.to_thread(self._app.send_task, "peer.job", args=arguments)
        until = time.monotonic() + _PATIENCE_S
        while not self._redis.exists(reply_key(arguments[0])):
            assert time.monotonic() < until, "no reply"
            await asyncio.sleep(_POLL_S)

    def answered(self) -> int:
        """Return how many tasks have been done, B's own left out of account."""
        return int(self._redis.get(ANSWERED) or 0)


async def _seconds(design: LoadedDesign) -> float:
    began = time.monotonic()
    await design.ask()
    return time.monotonic() - began


async def delay_in(design: LoadedDesign, queued: int, beside: int) -> Delay:
    """Let B ask alone, then beside A's jobs as many times."""
    await design.ask()  # once the worker is there, and all is open that is opened once
    alone = [await _seconds(design) for _ in range(_ALONE)]
    design.worker.pause()
    await design.fill(queued)
    before = design.answered()
    design.worker.resume()
    until = time.monotonic() + _PATIENCE_S
    while design.answered() < before + _SLOTS:
        assert time.monotonic() < until, "A's jobs are not answered"
        await asyncio.sleep(_POLL_S)
    found: list[tuple[float, int]] = []
    for _ in range(beside):
        answered = design.answered()
        found.append((await _seconds(design), design.answered() - answered))
    waits, meanwhile = [one for one, _ in found], [count for _, count in found]
    return Delay(
        design.name, queued, statistics.median(alone), statistics.median(waits), max(waits),
        round(statistics.median(meanwhile)),
    )  # fmt: skip


#: The designs in their order; whether A queues very many, and how many jobs B sends beside them.
_RUNS: Sequence[tuple[Callable[[Testbed, int], LoadedDesign], bool, int]] = (
    (LoadedCelery, False, 1),
    (partial(LoadedAfterword, one_tenant=True), False, 1),
    (LoadedAfterword, False, _BESIDE),
    (LoadedAfterword, True, _BESIDE),
)


async def measure(queued: int, many: int) -> list[Delay]:
    """Return what each design made of A's jobs; Afterword also with very many."""
    found: list[Delay] = []
    with Testbed(_TIMING) as testbed:
        for number, (make, is_many, beside) in enumerate(_RUNS):
            design = make(testbed, number)
            found.append(await delay_in(design, many if is_many else queued, beside))
            design.worker.kill()
    return found


def missed(found: Sequence[Delay]) -> list[str]:
    """Return the designs of ours in which A delays B by more than one reply.

    Told by what is answered, since a busy machine makes any wait long: while B waits for one reply
    of A and then for its own, each other slot answers two of A's at the most.
    """
    fair = [one for one in found if one.name == LoadedAfterword.name]
    return [f"{one.queued:,} queued" for one in fair if one.answered > 2 * _SLOTS]


def table(found: Sequence[Delay]) -> str:
    """Return a Markdown table, a row for each design."""
    rows = [
        "| design | jobs of A | B alone, s | B beside A, s | longest | added, s | of A meanwhile |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {one.name} | {one.queued:,} | {one.alone_s:.2f} | {one.beside_s:.2f} "
        f"| {one.longest_s:.2f} | {one.added_s:.2f} | {one.answered:,} |"
        for one in found
    ]
    return "\n".join(rows)
