"""How many jobs a second one process can submit, in each of the ways there are.

`python -m benchmarks.submits REDIS_URL ROUNDS COUNT` prints JSON; it submits and never waits.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.stage import Stage, cores
from producer import AsyncProducer, Producer
from shared.settings import Settings

_AT_ONCE = 100
_THREADS = 16


def submits(stage: Stage, rounds: int, count: int, database: int) -> dict[str, list[float]]:
    """Return the rates of each way, measured in a process on a core of its own."""
    argv = [sys.executable, "-m", "benchmarks.submits", stage.redis(database)]
    done = subprocess.run(  # noqa: S603 our own program
        ["taskset", "-c", str(cores()[1]), *argv, str(rounds), str(count)],  # noqa: S607
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found: dict[str, list[float]] = json.loads(done.stdout)
    return found


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


_WAYS: dict[str, Callable[[Settings, int], float]] = {
    "`AsyncProducer.submit_many`": lambda settings, count: asyncio.run(_many(settings, count)),
    f"`AsyncProducer.submit`, {_AT_ONCE} at once": lambda settings, count: asyncio.run(
        _at_once(settings, count)
    ),
    f"`Producer.submit`, {_THREADS} threads": lambda settings, count: _sync(
        settings, count // 2, _THREADS
    ),
    "`Producer.submit`, one thread": lambda settings, count: _sync(settings, count // 4, 1),
}


if __name__ == "__main__":
    chosen = Settings.load({"AFTERWORD_REDIS_URL": sys.argv[1], "AFTERWORD_MEMORY": "hosted"})
    tried = [
        {name: way(chosen, int(sys.argv[3])) for name, way in _WAYS.items()}
        for _ in range(int(sys.argv[2]))
    ]
    print(json.dumps({name: [one[name] for one in tried] for name in _WAYS}))
