"""What Celery does around a task, as far as a coroutine that answers to a ledger needs it."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from typing import Any, TypeAlias

from billiard.einfo import ExceptionInfo
from celery import Celery, signals, states
from celery.app.task import Task
from celery.exceptions import Terminated, TimeLimitExceeded
from celery.utils.dispatch import Signal

from afterword.workers.celery_runtime.error_location import whereabouts
from afterword.workers.celery_runtime.request import TaskRequest

logger = logging.getLogger(__name__)

#: What Celery's requests take as the end of a job: whether it failed, how, after how long.
Outcome: TypeAlias = tuple[bool, ExceptionInfo | None, float]

_BUILT_IN = "celery."


class NotACoroutineFunction(TypeError):
    """A task was asked for that would block the event loop; it was not run."""


class Tracer:
    """ReplayRuns coroutine tasks and sends the signals that Celery's own tracer sends.

    Left out: results, retries, canvas, the handlers of task classes (`on_failure`, ...) and
    `self.request` inside the task. What a task returns goes to `task_success` and no further.
    """

    def __init__(self, app: Celery) -> None:
        """Take the app whose tasks will run; those that it gets later are not known here."""
        self._tasks = app.tasks
        self._coroutines = {n for n, t in app.tasks.items() if inspect.iscoroutinefunction(t.run)}

    @property
    def refused(self) -> list[str]:
        """Return the names of the app's own tasks that are no coroutine functions."""
        own = {name for name in self._tasks if not name.startswith(_BUILT_IN)}
        return sorted(own - self._coroutines)

    async def trace(self, job: TaskRequest) -> Outcome:
        """Run the task of a job to its end, whatever that is."""
        task = self._tasks[job.name]
        call = {"args": job.request["args"], "kwargs": job.request["kwargs"]}
        started = time.monotonic()
        _tell(signals.task_prerun, task, job, task_id=job.id, task=task, **call)
        state, result = await self._end(task, job, **call)
        runtime = time.monotonic() - started
        failure = None
        if state == states.SUCCESS:
            _tell(signals.task_success, task, job, result=result, runtime=runtime)
        else:
            failure = _told_failure(task, job, result, call)
        _tell(
            signals.task_postrun, task, job,
            task_id=job.id, task=task, retval=result, state=state, **call,
        )  # fmt: skip
        return failure is not None, failure, runtime

    async def _end(
        self, task: Task[Any, Any], job: TaskRequest, args: Any, kwargs: Any
    ) -> tuple[str, Any]:
        """Return the state a job ended in, and what it returned or raised."""
        if job.name not in self._coroutines:
            return states.FAILURE, NotACoroutineFunction(job.name)
        try:
            return states.SUCCESS, await task.run(*args, **kwargs)
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001 the job's end
            error = _meant(job, raised)
            return states.REVOKED if isinstance(error, Terminated) else states.FAILURE, error


def _meant(job: TaskRequest, raised: BaseException) -> BaseException:
    """Return what an exception says about the job: cancelled why, or stopped by what."""
    if isinstance(raised, asyncio.CancelledError) and job.cause:
        return job.cause
    if isinstance(raised, SystemExit | KeyboardInterrupt):
        # As it is, Celery would stop the worker, and all other jobs with it.
        stopped = RuntimeError(f"raised {type(raised).__name__}")
        return stopped.with_traceback(raised.__traceback__)
    return raised


def as_failure(error: BaseException) -> ExceptionInfo:
    """Return an error as Celery's requests take it: with a traceback, even if never raised."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()


def _told_failure(
    task: Task[Any, Any], job: TaskRequest, error: BaseException, call: dict[str, Any]
) -> ExceptionInfo:
    """Send the signal of a failure, unless Celery's request does that, and log it."""
    failure = as_failure(error)
    if isinstance(error, Terminated | TimeLimitExceeded):
        return failure
    _tell(
        signals.task_failure, task, job, task_id=job.id, exception=error,
        traceback=error.__traceback__, einfo=failure, **call,
    )  # fmt: skip
    if error is not job.cause:
        logger.error("%s failed: %s", job, whereabouts(error))
    return failure


def _tell(signal: Signal, sender: Task[Any, Any], job: TaskRequest, **facts: Any) -> None:
    """Send a signal, with the job as the task's current request, if anyone listens."""
    if not signal.receivers:
        return
    sender.push_request(job.request, called_directly=False)
    try:
        signal.send(sender=sender, **facts)
    finally:
        sender.pop_request()
