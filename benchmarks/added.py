"""Added latency: what passes until an answer is there, beyond the time that was the providers'."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from afterword.producer import AsyncJob, AsyncProducer
from afterword.shared.settings import Settings
from benchmarks.peers.jobs import jobs
from benchmarks.provider import Pace

_SEED = 7
_MS = 1000


@dataclass
class Added:
    """What an open loop has found, in ms: after which job, how late, and how late the loop was.

    Of two jobs one is streamed and tells when its first token came, one is waited for and tells
    when its reply was there: neither pays for the other.
    """

    job_ids: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


async def open_loop(
    settings: Settings, pace: Pace, run: str, per_second: float, count: int
) -> Added:
    """Submit at random moments, whether or not anything is answered; wait for all of it."""
    found = Added()
    async with AsyncProducer(settings) as producer, asyncio.TaskGroup() as group:
        await producer.submit(user_id=f"{run}-warm", message="Connect.")
        gc.collect()
        gc.freeze()  # as the worker does: a backend's own pauses are not what is measured
        asked = jobs(run, count)
        async for late_ms in arrivals(per_second, count):
            found.late.append(late_ms)
            number, (_, user, message) = len(found.late), next(asked)
            follow = _streamed if number % 2 else _waited
            group.create_task(follow(producer, user, message, found, pace))
    gc.unfreeze()
    return found


async def arrivals(per_second: float, count: int) -> AsyncIterator[float]:
    """Give, at each moment a job arrives, by how many ms it is late."""
    chance, due = random.Random(_SEED), time.perf_counter()
    for _ in range(count):
        due += chance.expovariate(per_second)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield (time.perf_counter() - due) * _MS


async def _streamed(
    producer: AsyncProducer, user: str, message: str, found: Added, pace: Pace
) -> None:
    start, first = time.perf_counter(), list[float]()
    job = await _submit(producer, user, message, found)
    async for event in job.stream():
        if event.type == "delta" and not first:
            first.append(time.perf_counter())
    found.first.append(added_ms(start, first[0], pace.first_ms))


async def _waited(
    producer: AsyncProducer, user: str, message: str, found: Added, pace: Pace
) -> None:
    start = time.perf_counter()
    job = await _submit(producer, user, message, found)
    await job.wait()
    found.final.append(added_ms(start, time.perf_counter(), pace.whole_ms))


async def _submit(producer: AsyncProducer, user: str, message: str, found: Added) -> AsyncJob:
    job = await producer.submit(user_id=user, message=message)
    found.job_ids.append(job.id)
    return job


def added_ms(start_s: float, end_s: float, own_ms: float) -> float:
    """Return what passed between two moments beyond the providers' own time."""
    return (end_s - start_s) * _MS - own_ms
