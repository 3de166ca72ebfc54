"""arq as its documentation shows it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import run_worker

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

_SETTINGS = RedisSettings.from_dsn(REDIS)


async def job(context: dict[str, Any], job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await context["clients"].job(job_id, user, message)


async def _open(context: dict[str, Any]) -> None:
    from benchmarks.peers.async_clients import Clients

    context["clients"] = Clients()


class Worker:
    """What `arq` reads."""

    functions = (job,)
    on_startup = _open
    redis_settings = _SETTINGS
    max_jobs = IN_FLIGHT
    keep_result = 0


async def _submit(run: str, count: int) -> None:
    pool = await create_pool(_SETTINGS)
    for arguments in jobs(run, count):
        await pool.enqueue_job("job", *arguments)
    await pool.aclose()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        run_worker(Worker)
    else:
        asyncio.run(_submit(sys.argv[2], int(sys.argv[3])))
