"""dramatiq with its asyncio middleware: a thread waits for each job, one loop runs them all."""

from __future__ import annotations

import signal
import sys
from functools import cache
from typing import TYPE_CHECKING

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware.asyncio import AsyncIO

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

if TYPE_CHECKING:
    from benchmarks.peers.async_clients import Clients

# It is paused while others are measured and must not count as dead.
broker = RedisBroker(url=REDIS, heartbeat_timeout=3_600_000)
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@cache
def _clients() -> Clients:
    from benchmarks.peers.async_clients import Clients

    return Clients()


@dramatiq.actor(max_retries=0)
async def job(job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await _clients().job(job_id, user, message)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        worker = dramatiq.Worker(broker, worker_threads=IN_FLIGHT)
        worker.start()
        signal.pause()
    else:
        for arguments in jobs(sys.argv[2], int(sys.argv[3])):
            job.send(*arguments)
