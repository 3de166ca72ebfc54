"""Submits per second of one process, with each way to submit.

`python -m benchmarks.submits REDIS_URL ROUNDS COUNT` prints JSON; it submits without waiting for
replies.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from celery import Celery

from afterword.producer import AsyncProducer, Producer
from afterword.shared.settings import Settings
from benchmarks.figures import rates
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed, run_json

#: What submit_many is compared with, and by what factor it is to be faster.
_CELERY = "Celery's `apply_async`"
_TIMES_CELERY = 10
_AT_ONCE = 100
_THREADS = 16


def section(options: Options) -> Finding:
    """Measure each way to submit, in a process on its own core."""
    with Testbed() as testbed:
        count = options.jobs * 5
        found: dict[str, list[float]] = run_json(
            "benchmarks.submits", testbed.redis(0), str(options.rounds), str(count)
        )
    return Finding(rows=_rows(found), text=rates(found), runs=found)


def _rows(found: dict[str, list[float]]) -> list[Row]:
    """Return the rates beside their goals."""
    of = {name: statistics.median(values) for name, values in found.items()}
    against = [ours / theirs for ours, theirs in zip(found[_MANY], found[_CELERY], strict=True)]
    return [
        *(Row(name, of[name], "a second", at_least=goal) for name, goal in _GOALS.items()),
        Row(f"{_MANY} over {_CELERY}", statistics.median(against), "x", at_least=_TIMES_CELERY),
    ]


def _request(number: int) -> dict[str, Any]:
    return {"user_id": f"user-{number}", "message": "What is a good temperature?"}


async def _many(settings: Settings, count: int) -> float:
    requests = [_request(number) for number in range(count)]
    async with AsyncProducer(settings) as producer:
        await producer.submit(**_request(0))
        start = time.perf_counter()
        results = await producer.submit_many(requests)
        seconds = time.perf_counter() - start
    assert not [one for one in results if isinstance(one, Exception)], "not all were accepted"
    return count / seconds


async def _at_once(settings: Settings, count: int) -> float:
    numbers = iter(range(count))

    async def one_after_the_other() -> None:
        for number in numbers:
            await producer.submit(**_request(number))

    async with AsyncProducer(settings) as producer:
        await producer.submit(**_request(0))
        start = time.perf_counter()
        await asyncio.gather(*(one_after_the_other() for _ in range(_AT_ONCE)))
        return count / (time.perf_counter() - start)


def _sync(settings: Settings, count: int, threads: int) -> float:
    with Producer(settings) as producer, ThreadPoolExecutor(threads) as executor:
        producer.submit(**_request(0))
        start = time.perf_counter()
        for job in executor.map(lambda number: producer.submit(**_request(number)), range(count)):
            assert job.id
        return count / (time.perf_counter() - start)


def _never_run(**request: Any) -> None:
    """Stand for a task that no worker runs."""


def _celery(settings: Settings, count: int) -> float:
    """Send tasks as Celery's documentation shows it, over one connection."""
    app = Celery("peer", broker=settings.redis_url, task_ignore_result=True)
    task = app.task(name="peer.job")(_never_run)
    with app.producer_or_acquire() as producer:
        start = time.perf_counter()
        for number in range(count):
            task.apply_async(kwargs=_request(number), producer=producer)
        return count / (time.perf_counter() - start)


_MANY, _CONCURRENT, _ONE = (
    "`AsyncProducer.submit_many`",
    f"`AsyncProducer.submit`, {_AT_ONCE} at once",
    "`Producer.submit`, one thread",
)
_GOALS = {_MANY: 30_000, _CONCURRENT: 8_000, _ONE: 5_000}

_WAYS: dict[str, Callable[[Settings, int], float]] = {
    _MANY: lambda settings, count: asyncio.run(_many(settings, count)),
    _CONCURRENT: lambda settings, count: asyncio.run(_at_once(settings, count)),
    f"`Producer.submit`, {_THREADS} threads": lambda settings, count: _sync(
        settings, count // 2, _THREADS
    ),
    _ONE: lambda settings, count: _sync(settings, count // 4, 1),
    _CELERY: lambda settings, count: _celery(settings, count // 4),
}


if __name__ == "__main__":
    chosen = Settings.load({"AFTERWORD_REDIS_URL": sys.argv[1], "AFTERWORD_MEMORY": "hosted"})
    tried = [
        {name: way(chosen, int(sys.argv[3])) for name, way in _WAYS.items()}
        for _ in range(int(sys.argv[2]))
    ]
    print(json.dumps({name: [one[name] for one in tried] for name in _WAYS}))
