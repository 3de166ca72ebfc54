"""Celery's pool for coroutine tasks: one event loop a process, and no thread per job."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NoReturn

from celery.concurrency.base import BasePool
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.worker import state
from kombu.asynchronous import Hub, get_event_loop

from afterword.shared.errors import AfterwordError
from afterword.workers.celery_runtime.executor import Executor
from afterword.workers.celery_runtime.forced_exit import end_within, stop_worker
from afterword.workers.celery_runtime.heartbeat import PULSE
from afterword.workers.celery_runtime.loop import Lifespan, LoopThread
from afterword.workers.celery_runtime.request import TaskRequest
from afterword.workers.celery_runtime.thread_handoff import Crossing
from afterword.workers.celery_runtime.tracer import Outcome, Tracer
from afterword.workers.celery_runtime.wake_throttle import WakeThrottle

logger = logging.getLogger(__name__)

#: How long cancelled jobs, and after them the lifespan, may take to end.
PATIENCE_S = 5.0

#: What is left to do after the pool has stopped may take so long, unless a thread hangs.
LAST_S = 3.0

#: A stop takes no longer than this beyond its grace.
ENDS_WITHIN_S = 2 * PATIENCE_S + LAST_S

#: A loop that is late by more than this is reported, with the line of code that blocks it.
LAG_LIMIT_S = 1.0

#: Ended jobs are told to Celery once in so long, which is how long a slot may be free in vain.
PACE_S = 0.01

_WATCH_S = 1.0
_TICK_S = 0.1


class TaskPool(BasePool):
    """ReplayRuns coroutine tasks on an event loop of its own.

    Two threads, and each keeps to its own: Celery's hub, which does everything here and calls
    Celery back, and the loop's (`afterword.workers.celery_runtime.executor`), which does
    everything around the coroutines.
    """

    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    #: Makes what jobs need: a context entered on the loop before the first of them. What it
    #: gives is `afterword.workers.celery_runtime.loop.RUNTIME.get()` in every task. If it raises
    #: one of our errors, the worker says so in one line and ends.
    lifespan: Lifespan = staticmethod(nullcontext)
    #: A job that runs on for this long after a warm stop began is cancelled, so that it can
    #: give back what it holds.
    grace_s = 20.0

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what Celery gives to every pool."""
        super().__init__(*args, **options)
        self._numbers = itertools.count(1)
        self._waiting: deque[TaskRequest] = deque()
        self._running: dict[int, TaskRequest] = {}
        self._loop: LoopThread | None = None
        self._stopping = False

    def on_start(self) -> None:
        """Open the lifespan; a worker that cannot do that does not start."""
        hub = get_event_loop()
        if hub is None:
            _refuse("this pool needs a broker that Celery's event loop can wait for")
        tracer = Tracer(self.app)
        if tracer.refused:
            _refuse(f"this pool runs coroutine functions only, not {', '.join(tracer.refused)}")
        self._hub: Hub = hub
        self._crossing = Crossing(WakeThrottle(hub.call_soon, PACE_S))
        self._stage = Executor(
            tracer, self._crossed(self._limit_reached), self._crossed(self._ended)
        )
        loop = LoopThread(self.lifespan, stop_worker)
        try:
            loop.start(state.maybe_shutdown)
        except AfterwordError as error:
            _refuse(str(error))
        self._loop = loop

    def register_with_event_loop(self, loop: Hub) -> None:
        """Watch the event loop from the hub: while it is blocked it cannot say so itself."""
        loop.call_repeatedly(_WATCH_S, self._watch)

    def on_apply(self, *call: Any, **options: Any) -> TaskRequest:  # type: ignore[override]
        """Start a job, or let it wait for a slot.

        Of what Celery would have called, its tracer is not used: ours takes the same arguments.
        """
        _tracer, arguments, _keywords = call
        for limit in ("soft_timeout", "timeout"):
            options[limit] = options.get(limit) or self.options.get(limit)
        job = TaskRequest(next(self._numbers), arguments, options, self._terminate)
        self._waiting.append(job)
        self._admit()
        return job

    def terminate_job(self, pid: int, signal: object = None) -> None:  # noqa: ARG002
        """Cancel the running job of that number."""
        if job := self._running.get(pid):
            self._terminate(job)

    def grow(self, n: int = 1) -> None:
        """Allow `n` more jobs at a time."""
        self.limit += n
        self._admit()

    def shrink(self, n: int = 1) -> None:
        """Allow `n` fewer jobs at a time; those that run go on."""
        if n >= self.limit:
            raise ValueError("a pool keeps at least one slot")
        self.limit -= n

    def on_stop(self) -> None:
        """Let jobs end, cancel those that do not, close the lifespan."""
        self._stop(self.grace_s)

    def on_terminate(self) -> None:
        """Cancel all jobs, close the lifespan."""
        self._stop(0.0)

    @property
    def num_processes(self) -> int:
        """Return how many jobs may run at a time, which is how many Celery fetches."""
        stuck = len(self._stage.stuck) if self._loop else 0
        return int(self.limit) - stuck

    def _get_info(self) -> dict[str, Any]:
        """Return what `celery inspect stats` shows of this pool."""
        info: dict[str, Any] = super()._get_info()  # type: ignore[misc]
        if self._loop:
            info |= {
                "running": len(self._running),
                "waiting": len(self._waiting),
                "stuck": len(self._stage.stuck),
                "loop-lag-s": round(self._loop.lag_s, 3),
            }
        return info

    def _admit(self) -> None:
        """Start what waits, as far as there are slots."""
        while self._loop and self._waiting and self._has_slot():
            job = self._waiting.popleft()
            self._running[job.number] = job
            self._loop.call(self._stage.start, job)
            # Celery acknowledges its message now, and terminates it at once if it was revoked.
            job.on_accepted(job.number, time.monotonic())

    def _has_slot(self) -> bool:
        return not self._stopping and len(self._running) < self.limit

    def _terminate(self, job: TaskRequest) -> None:
        """Cancel a job whose end Celery has announced itself."""
        if job.number in self._running:
            if not job.settled and self._loop:
                job.settled = True
                self._loop.call(self._stage.cancel, job)
        elif job in self._waiting:
            self._waiting.remove(job)
            # Celery announces the end of a revoked job, and acknowledges it, once it is accepted.
            job.on_accepted(job.number, time.monotonic())

    def _limit_reached(self, job: TaskRequest, soft: bool) -> None:  # noqa: FBT001 Celery's own word
        if not job.settled:
            job.settled = not soft
            job.on_timeout(soft, job.soft_limit_s if soft else job.hard_limit_s)

    def _ended(self, job: TaskRequest, outcome: Outcome) -> None:
        del self._running[job.number]
        self._admit()
        if not job.settled:
            job.on_ended(outcome)

    def _watch(self) -> None:
        if len(state.reserved_requests) >= self.num_processes:
            PULSE.beat()  # Celery asks for no hint while it has no slot for one
        if self._loop and self._loop.lag_s > LAG_LIMIT_S:
            lag_s, place = self._loop.lag_s, self._loop.place
            logger.warning("the event loop is blocked for %.1f s now, at %s", lag_s, place)

    def _stop(self, grace_s: float) -> None:
        """Stop; nothing is left to do if this is called again, or once more meanwhile.

        Runs on the hub's thread while the hub stands still, so what crosses is taken up here. In
        a cold stop Celery has cancelled all jobs before, and this is its signal handler, which
        may have come while a warm stop was waiting.
        """
        self._stopping = True
        PULSE.end()
        self._drain(grace_s, lambda: all(job.settled for job in self._running.values()))
        for job in list(self._running.values()):
            self._terminate(job)
        self._drain(PATIENCE_S, lambda: not self._running)
        loop, self._loop = self._loop, None
        if loop and not loop.stop(PATIENCE_S):
            logger.critical("the event loop did not end within %g s", PATIENCE_S)
            end_within(LAST_S)

    def _drain(self, limit_s: float, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit_s
        while not done() and time.monotonic() < deadline:
            self._crossing.drain(_TICK_S)
            if any(not job.settled for job in self._running.values()):
                # A worker that lets jobs end is alive, and a timer may be how it says so. In a
                # signal handler, where jobs are settled, timers may not be fired.
                self._hub.fire_timers()

    def _crossed(self, function: Callable[..., object]) -> Callable[..., None]:
        return lambda *arguments: self._crossing.call(partial(function, *arguments))


def pool_of(lifespan: Lifespan, *, grace_s: float) -> type[TaskPool]:
    """Return the pool class, to be set as `worker_pool`, whose jobs run inside that lifespan."""
    members = {"__module__": __name__, "lifespan": staticmethod(lifespan), "grace_s": grace_s}
    return type("TaskPool", (TaskPool,), members)


def _refuse(reason: str) -> NoReturn:
    """End the worker with one line."""
    logger.critical("cannot start: %s", reason)
    raise WorkerShutdown(EX_FAILURE)
