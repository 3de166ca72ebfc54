"""The runner of periodic tasks: intervals with jitter, errors isolated, liveness known."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from afterword.shared.errors import AfterwordError
from afterword.shared.events import PeriodicTaskFailed, PeriodicTaskLate, PeriodicTaskRecovered
from afterword.shared.ledger.records import TaskHealth
from afterword.shared.observer import emit, emit_internal_error

#: Workers that started together do not march in step: each pause is this share of the interval.
JITTER = (0.5, 1.5)

#: The jitter of what must keep time.
STEADY = (1.0, 1.0)


@dataclass(frozen=True, slots=True)
class PeriodicTask:
    """`run` is called every `interval_s` seconds, give or take `jitter`, for as long as it lives.

    If it returns True, more is due, and it is called again at once. A run that takes longer than
    `limit_s` seconds is late. With `waits_first`, the first run comes after a pause.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    interval_s: float
    jitter: tuple[float, float] = JITTER
    limit_s: float = 30.0
    waits_first: bool = False

    def pause_s(self) -> float:
        """Return how long to wait until the next run, another time for each."""
        return self.interval_s * random.uniform(*self.jitter)  # noqa: S311 no secret


class _Runs:
    """The runs of one task so far."""

    def __init__(self, task: PeriodicTask, clock: Callable[[], float]) -> None:
        self.name = task.name
        self._limit_s = task.limit_s
        self._clock = clock
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._succeeded_at: float | None = None
        self._failures = 0
        self._late = False

    def begin(self) -> None:
        self._started_at = self._clock()

    def mark_late(self) -> None:
        """Report that the run at hand takes longer than it may."""
        self._late = True
        emit(PeriodicTaskLate, task=self.name, running_s=self._limit_s)

    def fail(self, error: Exception) -> None:
        """Report the failure of a run; an error that is not one of ours is a bug."""
        self._end()
        self._failures += 1
        if not isinstance(error, AfterwordError):
            emit_internal_error(error)
        emit(
            PeriodicTaskFailed,
            task=self.name,
            error=type(error).__name__,
            failures=self._failures,
        )

    def succeed(self) -> None:
        if self._late or self._failures:
            emit(PeriodicTaskRecovered, task=self.name, failures=self._failures)
        self._end()
        self._succeeded_at = self._ended_at
        self._failures = 0
        self._late = False

    def _end(self) -> None:
        self._ended_at, self._started_at = self._clock(), None

    def health(self) -> TaskHealth:
        """Return how the task is now; times are in seconds before now."""
        late = self._late and self._started_at is not None
        return TaskHealth(
            name=self.name,
            state="late" if late else "failing" if self._failures else "ok",
            failures=self._failures,
            last_run_s=self._ago(self._ended_at),
            last_success_s=self._ago(self._succeeded_at),
        )

    def _ago(self, at: float | None) -> float | None:
        return None if at is None else round(self._clock() - at, 1)


class PeriodicTasks:
    """Runs tasks side by side; none of them ends because a run of it, or of another, failed."""

    def __init__(
        self, tasks: Iterable[PeriodicTask], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tasks = tuple(tasks)
        self._runs = {task.name: _Runs(task, clock) for task in self._tasks}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all tasks while the context is open; cancel them at its end."""
        async with asyncio.TaskGroup() as group:
            running = [group.create_task(self._repeat(task)) for task in self._tasks]
            try:
                yield
            finally:
                for one in running:
                    one.cancel()

    def health(self) -> tuple[TaskHealth, ...]:
        """Return how each task is now."""
        return tuple(runs.health() for runs in self._runs.values())

    async def _repeat(self, task: PeriodicTask) -> None:
        again = not task.waits_first
        while True:
            if not again:
                await asyncio.sleep(task.pause_s())
            again = await self._run_once(task)

    async def _run_once(self, task: PeriodicTask) -> bool:
        """Run a task; return whether more is due at once."""
        runs = self._runs[task.name]
        runs.begin()
        alarm = asyncio.get_running_loop().call_later(task.limit_s, runs.mark_late)
        try:
            more = await task.run()
        except Exception as error:  # noqa: BLE001 whatever it is, the task runs again
            runs.fail(error)
            return False
        finally:
            alarm.cancel()
        runs.succeed()
        return more is True
