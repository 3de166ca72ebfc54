"""Our replacement for Celery's tracer: runs a coroutine task and sends Celery's task signals."""

from __future__ import annotations

import asyncio
import inspect
import time
from typing import Any, TypeAlias

from billiard.einfo import ExceptionInfo
from celery import Celery, signals, states
from celery.app.task import Task
from celery.exceptions import Terminated, TimeLimitExceeded
from celery.utils.dispatch import Signal

from afterword.shared.error_location import error_location, error_name
from afterword.shared.events import TaskFailed
from afterword.shared.observer import emit
from afterword.workers.celery_runtime.request import TaskRequest

#: What Celery's `Request.on_success` expects: whether it failed, the failure, seconds it took.
TaskOutcome: TypeAlias = tuple[bool, ExceptionInfo | None, float]


class NotACoroutineFunction(TypeError):
    """The task is a plain function, which would block the event loop; it was not run."""


class Tracer:
    """Runs coroutine tasks and sends the signals that Celery's own tracer sends.

    Left out: results, retries, canvas, the handlers of task classes (`on_failure`, ...) and
    `self.request` inside the task. A return value goes to `task_success` and no further.
    """

    def __init__(self, app: Celery) -> None:
        """Know the tasks that `app` has now, not those that are added later."""
        self._tasks = app.tasks
        self._coroutines = {n for n, t in app.tasks.items() if inspect.iscoroutinefunction(t.run)}

    @property
    def refused(self) -> list[str]:
        """The names of the app's own tasks that are not coroutine functions.

        Celery also registers what other apps of the process share, which is the default; no hint
        names such a task.
        """
        everyones = Celery(set_as_current=False, fixups=[]).tasks
        return sorted(self._tasks.keys() - everyones.keys() - self._coroutines)

    async def trace(self, job: TaskRequest) -> TaskOutcome:
        """Run the task of a job to its end; an error of the task is part of the outcome."""
        task = self._tasks[job.name]
        call = {"args": job.request["args"], "kwargs": job.request["kwargs"]}
        started = time.monotonic()
        _send(signals.task_prerun, task, job, task_id=job.id, task=task, **call)
        state, result = await self._run_task(task, job, **call)
        runtime = time.monotonic() - started
        failure = None
        if state == states.SUCCESS:
            _send(signals.task_success, task, job, result=result, runtime=runtime)
        else:
            failure = _report_failure(task, job, result, call)
        _send(
            signals.task_postrun, task, job,
            task_id=job.id, task=task, retval=result, state=state, **call,
        )  # fmt: skip
        return failure is not None, failure, runtime

    async def _run_task(
        self, task: Task[Any, Any], job: TaskRequest, args: Any, kwargs: Any
    ) -> tuple[str, Any]:
        """Return the Celery state that a job ended in, and what it returned or raised."""
        if job.name not in self._coroutines:
            return states.FAILURE, NotACoroutineFunction(job.name)
        try:
            return states.SUCCESS, await task.run(*args, **kwargs)
        except (Exception, asyncio.CancelledError, SystemExit, KeyboardInterrupt) as raised:  # noqa: BLE001 part of the outcome
            error = _error_to_report(job, raised)
            return states.REVOKED if isinstance(error, Terminated) else states.FAILURE, error


def _error_to_report(job: TaskRequest, raised: BaseException) -> BaseException:
    """Return what to report for an exception: for a cancellation, its cause."""
    if isinstance(raised, asyncio.CancelledError) and job.cause:
        return job.cause
    if isinstance(raised, SystemExit | KeyboardInterrupt):
        # Passed on as it is, it would make Celery stop the worker and every other job in it.
        stopped = RuntimeError(f"raised {type(raised).__name__}")
        return stopped.with_traceback(raised.__traceback__)
    return raised


def as_failure(error: BaseException) -> ExceptionInfo:
    """Wrap an error as Celery's requests expect it; one that was never raised gets a traceback."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()


def _report_failure(
    task: Task[Any, Any], job: TaskRequest, error: BaseException, call: dict[str, Any]
) -> ExceptionInfo:
    """Send `task_failure` and log the error, unless Celery's own request does."""
    failure = as_failure(error)
    if isinstance(error, Terminated | TimeLimitExceeded):
        return failure
    _send(
        signals.task_failure, task, job, task_id=job.id, exception=error,
        traceback=error.__traceback__, einfo=failure, **call,
    )  # fmt: skip
    if error is not job.cause:
        emit(
            TaskFailed,
            task=job.name,
            task_id=job.id,
            error=error_name(error),
            place=error_location(error),
        )
    return failure


def _send(signal: Signal, sender: Task[Any, Any], job: TaskRequest, **facts: Any) -> None:
    """Send a signal if it has receivers, with the job as the task's current request."""
    if not signal.receivers:
        return
    sender.push_request(job.request, called_directly=False)
    try:
        signal.send(sender=sender, **facts)
    finally:
        sender.pop_request()
