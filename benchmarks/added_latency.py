"""Added latency: the time until an answer arrives, less the time that the providers took."""

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
from benchmarks.provider import AnswerTiming

_SEED = 7
_MS = 1000


@dataclass
class LatencySamples:
    """The samples of an open loop, in ms.

    Every second job is streamed and gives a sample of `first`, the added latency of its first
    token; the others are waited for and give samples of `final`, that of the reply. So neither is
    slowed by the other. `late` is by how much the loop itself was late.
    """

    job_ids: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    final: list[float] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


async def open_loop(
    settings: Settings, timing: AnswerTiming, run: str, per_second: float, count: int
) -> LatencySamples:
    """Submit at random moments, whether or not anything was answered; wait for all replies."""
    found = LatencySamples()
    async with AsyncProducer(settings) as producer, asyncio.TaskGroup() as group:
        await producer.submit(user_id=f"{run}-warm", message="Connect.")
        gc.collect()
        gc.freeze()  # as the worker does: pauses of the backend are not measured
        asked = jobs(run, count)
        async for late_ms in arrivals(per_second, count):
            found.late.append(late_ms)
            number, (_, user, message) = len(found.late), next(asked)
            follow = _streamed if number % 2 else _waited
            group.create_task(follow(producer, user, message, found, timing))
    gc.unfreeze()
    return found


async def arrivals(per_second: float, count: int) -> AsyncIterator[float]:
    """Yield when a job is due: by how many ms that is late."""
    chance, due = random.Random(_SEED), time.perf_counter()
    for _ in range(count):
        due += chance.expovariate(per_second)
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield (time.perf_counter() - due) * _MS


async def _streamed(
    producer: AsyncProducer, user: str, message: str, found: LatencySamples, timing: AnswerTiming
) -> None:
    start, first = time.perf_counter(), list[float]()
    job = await _submit(producer, user, message, found)
    async for event in job.stream():
        if event.type == "delta" and not first:
            first.append(time.perf_counter())
    found.first.append(added_ms(start, first[0], timing.first_ms))


async def _waited(
    producer: AsyncProducer, user: str, message: str, found: LatencySamples, timing: AnswerTiming
) -> None:
    start = time.perf_counter()
    job = await _submit(producer, user, message, found)
    await job.wait()
    found.final.append(added_ms(start, time.perf_counter(), timing.whole_ms))


async def _submit(
    producer: AsyncProducer, user: str, message: str, found: LatencySamples
) -> AsyncJob:
    job = await producer.submit(user_id=user, message=message)
    found.job_ids.append(job.id)
    return job


def added_ms(start_s: float, end_s: float, own_ms: float) -> float:
    """Return the ms between two moments, less the time that the providers took."""
    return (end_s - start_s) * _MS - own_ms
