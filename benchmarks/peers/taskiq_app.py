"""taskiq on its Redis stream broker, which acknowledges finished tasks."""

from __future__ import annotations

import asyncio
import sys

from taskiq import TaskiqEvents, TaskiqState
from taskiq.cli.worker.cmd import WorkerCMD
from taskiq_redis import RedisStreamBroker

from benchmarks.peers.jobs import IN_FLIGHT, REDIS, jobs

# No socket timeout: a worker that is paused while others are measured must not fail.
broker = RedisStreamBroker(url=REDIS, consumer_id="0", socket_timeout=None)
_NAME = "benchmarks.peers.taskiq_app:broker"


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _open(state: TaskiqState) -> None:
    from benchmarks.peers.async_clients import Clients

    state.clients = Clients()


@broker.task(task_name="peer.job")
async def job(job_id: str, user: str, message: str) -> None:
    """Do the job."""
    await broker.state.clients.job(job_id, user, message)


async def _submit(run: str, count: int) -> None:
    await broker.startup()
    for arguments in jobs(run, count):
        await job.kiq(*arguments)
    await broker.shutdown()


if __name__ == "__main__":
    if sys.argv[1] == "work":
        WorkerCMD().exec([_NAME, "--workers", "1", "--max-async-tasks", str(IN_FLIGHT),
                          "--log-level", "ERROR"])  # fmt: skip
    else:
        asyncio.run(_submit(sys.argv[2], int(sys.argv[3])))
