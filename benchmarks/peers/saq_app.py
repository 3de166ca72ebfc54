"""SAQ as its documentation shows it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from redis.asyncio import Redis
from saq import Worker
from saq.queue.redis import RedisQueue

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs


def _queue() -> RedisQueue:
    # Enough connections for the jobs in flight: the client's own limit is 100. No socket timeout:
    # a worker that is paused while others are measured would lose what it receives.
    return RedisQueue(Redis.from_url(REDIS, max_connections=10 * IN_FLIGHT, socket_timeout=None))


async def job(context: dict[str, Any], *, job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await context["clients"].job(job_id, user, message)


async def _open(context: dict[str, Any]) -> None:
    from benchmarks.peers.async_clients import Clients

    context["clients"] = Clients()


async def _work() -> None:
    await Worker(_queue(), [job], concurrency=IN_FLIGHT, startup=_open).start()


async def _submit(run: str, count: int) -> None:
    queue = _queue()
    await queue.connect()
    for job_id, user, message in jobs(run, count):
        await queue.enqueue("job", job_id=job_id, user=user, message=message, timeout=600)
    await queue.disconnect()


if __name__ == "__main__":
    asyncio.run(_work() if sys.argv[1] == "work" else _submit(sys.argv[2], int(sys.argv[3])))
