"""The two Celery tasks: each passes its id to the runtime that the pool has opened."""

from __future__ import annotations

from typing import Any, Protocol

from celery import Celery
from celery.worker.request import Request

from afterword.shared.names import RUN_TASK, WRITE_TASK
from afterword.workers.celery_runtime.loop import RUNTIME


class Runtime(Protocol):
    """What a worker process can do. The pool's lifespan creates it."""

    async def respond(self, job_id: str, *, ahead: bool = False) -> None:
        """Run a job, unless another worker runs it or it has ended.

        `ahead` says that its hint was taken before older ones.
        """
        ...

    async def store_turns(self, lane_id: str) -> None:
        """Store the pending turns of a lane, unless another worker does or there are none."""
        ...


class HintRequest(Request):
    """A hint as Celery keeps it while it runs; remote control shows its id, not its arguments."""

    def info(self, safe: bool = False) -> Any:  # noqa: ARG002, FBT001, FBT002 as Celery calls it
        """Return what `inspect active` and Flower show: the argument would name a lane's user."""
        return super().info(safe=True)


def register(app: Celery) -> None:
    """Add the two tasks to this app only, not to other apps of the process."""
    app.task(name=RUN_TASK, shared=False, Request=HintRequest)(_run)
    app.task(name=WRITE_TASK, shared=False, Request=HintRequest)(_write)


async def _run(job_id: str, *, ahead: bool = False) -> None:
    runtime: Runtime = RUNTIME.get()
    await runtime.respond(job_id, ahead=ahead)


async def _write(lane_id: str) -> None:
    runtime: Runtime = RUNTIME.get()
    await runtime.store_turns(lane_id)
