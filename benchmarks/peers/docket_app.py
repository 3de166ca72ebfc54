"""docket as its documentation shows it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from docket import Docket, Worker

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

#: Enough connections for the jobs in flight: the client's own limit is 100.
_REDIS = f"{REDIS}?max_connections={10 * IN_FLIGHT}"

_clients: list[Any] = []


async def job(job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await _clients[0].job(job_id, user, message)


async def _work() -> None:
    from benchmarks.peers.async_clients import Clients

    _clients.append(Clients())
    async with Docket(name="peer", url=_REDIS) as docket:
        docket.register(job)
        async with Worker(docket, concurrency=IN_FLIGHT) as worker:
            await worker.run_forever()


async def _submit(run: str, count: int) -> None:
    async with Docket(name="peer", url=_REDIS) as docket:
        docket.register(job)
        for arguments in jobs(run, count):
            await docket.add(job)(*arguments)


if __name__ == "__main__":
    asyncio.run(_work() if sys.argv[1] == "work" else _submit(sys.argv[2], int(sys.argv[3])))
