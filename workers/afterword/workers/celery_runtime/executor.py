"""Runs the coroutines of the pool's jobs. Everything here happens on the event loop's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded

from afterword.shared.error_location import error_location, error_name
from afterword.shared.events import TaskStuck, TracerFailed
from afterword.shared.observer import emit
from afterword.workers.celery_runtime.request import TaskRequest
from afterword.workers.celery_runtime.tracer import TaskOutcome, Tracer, as_failure

#: A coroutine that still runs this long after it was cancelled counts as stuck.
STUCK_AFTER_S = 5.0


class Executor:
    """Starts jobs, enforces their time limits, cancels them, and counts those that are stuck."""

    def __init__(
        self,
        tracer: Tracer,
        on_limit: Callable[[TaskRequest, bool], object],
        on_end: Callable[[TaskRequest, TaskOutcome], object],
    ) -> None:
        """Call `on_limit` with True for a soft limit and False for a hard one."""
        self._tracer = tracer
        self._on_limit = on_limit
        self._on_end = on_end
        self.stuck: set[int] = set()

    def start(self, job: TaskRequest) -> None:
        """Start the coroutine of a job, and its time limits."""
        loop = asyncio.get_running_loop()
        job.task = loop.create_task(self._tracer.trace(job))
        limits = []
        if job.soft_limit_s:
            limits.append(loop.call_later(job.soft_limit_s, self._soft_limit, job))
        if job.hard_limit_s:
            limits.append(loop.call_later(job.hard_limit_s, self._hard_limit, job))
        # A callback, not code after the await: a task cancelled before it starts runs no code.
        job.task.add_done_callback(partial(self._ended, job, limits))

    def cancel(self, job: TaskRequest, cause: Exception | None = None) -> None:
        """Cancel a job. It keeps its slot until its coroutine has ended."""
        if job.task is None or job.task.done():
            return
        job.cause = cause or Terminated("cancelled")
        job.task.cancel()
        asyncio.get_running_loop().call_later(STUCK_AFTER_S, self._check_stuck, job)

    def _soft_limit(self, job: TaskRequest) -> None:
        self._on_limit(job, True)  # noqa: FBT003 Celery's own signature
        self.cancel(job, SoftTimeLimitExceeded(job.soft_limit_s))

    def _hard_limit(self, job: TaskRequest) -> None:
        self._on_limit(job, False)  # noqa: FBT003 Celery's own signature
        self.cancel(job, TimeLimitExceeded(job.hard_limit_s))

    def _check_stuck(self, job: TaskRequest) -> None:
        if job.task is None or job.task.done() or job.number in self.stuck:
            return
        self.stuck.add(job.number)
        emit(TaskStuck, task=job.name, task_id=job.id)

    def _ended(
        self,
        job: TaskRequest,
        limits: list[asyncio.TimerHandle],
        task: asyncio.Task[TaskOutcome],
    ) -> None:
        for limit in limits:
            limit.cancel()
        self.stuck.discard(job.number)
        self._on_end(job, _outcome(task))


def _outcome(task: asyncio.Task[TaskOutcome]) -> TaskOutcome:
    """Return how a job ended, also if it was cancelled before it began or the tracer failed."""
    if task.cancelled():
        return True, as_failure(Terminated("cancelled")), 0.0
    if error := task.exception():
        emit(TracerFailed, error=error_name(error), place=error_location(error))
        return True, as_failure(error), 0.0
    return task.result()
