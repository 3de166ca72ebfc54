"""Where the coroutines of the running jobs are: everything here happens on the loop's thread."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded, Terminated, TimeLimitExceeded

from afterword.workers.celery_runtime.error_location import whereabouts
from afterword.workers.celery_runtime.request import TaskRequest
from afterword.workers.celery_runtime.tracer import Outcome, Tracer, as_failure

logger = logging.getLogger(__name__)

#: A coroutine that goes on for this long after it was cancelled is called stuck.
STUCK_AFTER_S = 5.0


class Executor:
    """Starts jobs, holds them to their time limits, cancels them, counts those that ignore it."""

    def __init__(
        self,
        tracer: Tracer,
        on_limit: Callable[[TaskRequest, bool], object],
        on_end: Callable[[TaskRequest, Outcome], object],
    ) -> None:
        """Take who runs a job, and whom to tell about a limit (soft or not) and about the end."""
        self._tracer = tracer
        self._on_limit = on_limit
        self._on_end = on_end
        self.stuck: set[int] = set()

    def start(self, job: TaskRequest) -> None:
        """Run a job."""
        loop = asyncio.get_running_loop()
        job.task = loop.create_task(self._tracer.trace(job))
        limits = []
        if job.soft_limit_s:
            limits.append(loop.call_later(job.soft_limit_s, self._soft_limit, job))
        if job.hard_limit_s:
            limits.append(loop.call_later(job.hard_limit_s, self._hard_limit, job))
        # Not the last lines of a coroutine: one that is cancelled before it starts has none.
        job.task.add_done_callback(partial(self._ended, job, limits))

    def cancel(self, job: TaskRequest, cause: Exception | None = None) -> None:
        """Cancel a job for that cause; it has ended only when its coroutine has."""
        if job.task is None or job.task.done():
            return
        job.cause = cause or Terminated("cancelled")
        job.task.cancel()
        asyncio.get_running_loop().call_later(STUCK_AFTER_S, self._check, job)

    def _soft_limit(self, job: TaskRequest) -> None:
        self._on_limit(job, True)  # noqa: FBT003 Celery's own word
        self.cancel(job, SoftTimeLimitExceeded(job.soft_limit_s))

    def _hard_limit(self, job: TaskRequest) -> None:
        self._on_limit(job, False)  # noqa: FBT003 Celery's own word
        self.cancel(job, TimeLimitExceeded(job.hard_limit_s))

    def _check(self, job: TaskRequest) -> None:
        if job.task is None or job.task.done() or job.number in self.stuck:
            return
        self.stuck.add(job.number)
        logger.critical("%s ignores its cancellation: its slot is lost until it ends", job)

    def _ended(
        self, job: TaskRequest, limits: list[asyncio.TimerHandle], task: asyncio.Task[Outcome]
    ) -> None:
        for limit in limits:
            limit.cancel()
        self.stuck.discard(job.number)
        self._on_end(job, _outcome(task))


def _outcome(task: asyncio.Task[Outcome]) -> Outcome:
    """Return how a job ended, even if it was cancelled before it began, or the tracer failed."""
    if task.cancelled():
        return True, as_failure(Terminated("cancelled")), 0.0
    if error := task.exception():
        logger.critical("the tracer failed: %s", whereabouts(error))
        return True, as_failure(error), 0.0
    return task.result()
