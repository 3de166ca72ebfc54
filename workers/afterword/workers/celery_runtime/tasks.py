"""The two Celery tasks: each hands its id to the runtime that the pool has opened."""

from __future__ import annotations

from typing import Protocol

from celery import Celery

from afterword.shared.names import RUN_TASK, WRITE_TASK
from afterword.workers.celery_runtime.loop import RUNTIME


class Runtime(Protocol):
    """What a worker process can do; the pool's lifespan makes one."""

    async def respond(self, job_id: str) -> None:
        """Answer a job, unless someone else does or nobody has to."""
        ...

    async def write(self, lane_id: str) -> None:
        """Store the turns of a lane, unless someone else does or there are none."""
        ...


def register(app: Celery) -> None:
    """Make the two tasks known to this app, and to no other one in the process."""
    app.task(name=RUN_TASK, shared=False)(_run)
    app.task(name=WRITE_TASK, shared=False)(_write)


async def _run(job_id: str) -> None:
    runtime: Runtime = RUNTIME.get()
    await runtime.respond(job_id)


async def _write(lane_id: str) -> None:
    runtime: Runtime = RUNTIME.get()
    await runtime.write(lane_id)
