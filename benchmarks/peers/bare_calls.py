"""The baseline: only the SDK calls, as many at once as the designs have slots.

`work` makes the two calls of a job, `work adds` the two calls of a turn.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from redis import Redis as BlockingRedis

from benchmarks.peers.jobs import ANSWERED, IN_FLIGHT, REDIS, jobs

if TYPE_CHECKING:
    from benchmarks.peers.async_clients import Clients

_RUNS = "bench:runs"


async def _work() -> None:
    from benchmarks.peers.async_clients import Clients

    async with Clients() as clients:
        while True:
            _, request = await clients.redis.blpop([_RUNS])
            run, _, count = request.decode().rpartition(":")
            await _all(clients, run, int(count))
            await clients.redis.incrby(ANSWERED, int(count))


async def _ask(clients: Clients, _job: str, user: str, message: str) -> None:
    assert await clients.ask(user, message)


async def _remember(clients: Clients, job: str, user: str, message: str) -> None:
    await clients.remember(job, user, message)


_CALLS = _remember if sys.argv[2:] == ["adds"] else _ask


async def _all(clients: Clients, run: str, count: int) -> None:
    waiting = jobs(run, count)

    async def one_after_the_other() -> None:
        for one in waiting:
            await _CALLS(clients, *one)

    await asyncio.gather(*(one_after_the_other() for _ in range(IN_FLIGHT)))


if __name__ == "__main__":
    if sys.argv[1] == "work":
        asyncio.run(_work())
    else:
        BlockingRedis.from_url(REDIS).rpush(_RUNS, ":".join(sys.argv[2:4]))
