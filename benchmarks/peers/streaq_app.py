"""streaQ as its documentation shows it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streaq import Worker

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

if TYPE_CHECKING:
    from benchmarks.peers.async_clients import Clients


@asynccontextmanager
async def _open() -> AsyncIterator[Clients]:
    from benchmarks.peers.async_clients import Clients

    async with Clients() as clients:
        yield clients


#: It is paused while others are measured and must not count as dead.
_STILL_S = 3600

worker = Worker(
    redis_url=REDIS, concurrency=IN_FLIGHT, lifespan=_open, idle_timeout=_STILL_S,
    redis_kwargs={"max_connections": 10 * IN_FLIGHT},
)  # fmt: skip


@worker.task
async def job(job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await worker.context.job(job_id, user, message)


async def _submit(run: str, count: int) -> None:
    async with worker:
        await worker.enqueue_many([job.enqueue(*arguments) for arguments in jobs(run, count)])


if __name__ == "__main__":
    if sys.argv[1] == "work":
        worker.run_sync()
    else:
        asyncio.run(_submit(sys.argv[2], int(sys.argv[3])))
