"""A Celery worker pool for coroutine tasks: one event loop per process, no thread per job."""

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
from afterword.shared.events import EventLoopBlocked, EventLoopNotStopped
from afterword.shared.observer import emit
from afterword.workers.celery_runtime.drain import DRAIN
from afterword.workers.celery_runtime.executor import Executor
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT
from afterword.workers.celery_runtime.loop import (
    Lifespan,
    LoopThread,
    force_exit_after,
    stop_worker,
)
from afterword.workers.celery_runtime.request import TaskRequest
from afterword.workers.celery_runtime.thread_handoff import ThreadHandoff, WakeThrottle
from afterword.workers.celery_runtime.tracer import TaskOutcome, Tracer

logger = logging.getLogger(__name__)

#: How long cancelled jobs may take to end, and after them the lifespan.
CANCEL_TIMEOUT_S = 5.0

#: How long the process may take to exit once the event loop has failed to stop in time.
EXIT_TIMEOUT_S = 3.0

#: How much longer than its grace period a stop may take.
STOP_OVERHEAD_S = 2 * CANCEL_TIMEOUT_S + EXIT_TIMEOUT_S

#: How far a pool may grow: each slot is a hint in memory.
MAX_SLOTS = 10_000

#: When the event loop has been blocked for longer than this, the blocking line is logged.
LAG_LIMIT_S = 1.0

#: The least time between two wake-ups of Celery's thread. A slot may stay free for that long.
WAKE_INTERVAL_S = 0.01

_WATCH_INTERVAL_S = 1.0
_DRAIN_TICK_S = 0.1


class TaskPool(BasePool):
    """Runs coroutine tasks on an event loop in a thread of its own.

    All methods here run on the thread of Celery's hub, which makes all calls back into Celery.
    Everything around the coroutines runs on the event loop's thread (`executor`).
    """

    signal_safe = False
    body_can_be_buffer = True
    task_join_will_block = False

    #: Creates what jobs need: a context entered on the loop before the first job. Tasks get what
    #: it yields from `afterword.workers.celery_runtime.loop.RUNTIME.get()`. If it raises an
    #: `AfterwordError`, the worker logs one line and exits.
    lifespan: Lifespan = staticmethod(nullcontext)
    #: Seconds after the start of a warm stop at which running jobs are cancelled, so that they can
    #: give back their leases.
    grace_s = 20.0

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._numbers = itertools.count(1)
        self._waiting: deque[TaskRequest] = deque()
        self._running: dict[int, TaskRequest] = {}
        self._loop: LoopThread | None = None
        self._stopping = False

    def on_start(self) -> None:
        """Open the lifespan; end the worker with one line if that is not possible."""
        hub = get_event_loop()
        if hub is None:
            _refuse_to_start("this pool needs a broker that works with Celery's event loop")
        tracer = Tracer(self.app)
        if tracer.refused:
            names = ", ".join(tracer.refused)
            _refuse_to_start(f"this pool runs coroutine functions only, not {names}")
        self._hub: Hub = hub
        self._handoff = ThreadHandoff(WakeThrottle(hub.call_soon, WAKE_INTERVAL_S))
        self._executor = Executor(
            tracer, self._on_hub_thread(self._limit_reached), self._on_hub_thread(self._ended)
        )
        loop = LoopThread(self.lifespan, stop_worker)
        try:
            loop.start(state.maybe_shutdown)
        except AfterwordError as error:
            _refuse_to_start(str(error))
        self._loop = loop

    def register_with_event_loop(self, loop: Hub) -> None:
        """Watch our event loop from the hub: a blocked loop cannot report itself."""
        loop.call_repeatedly(_WATCH_INTERVAL_S, self._watch)

    def on_apply(self, *call: Any, **options: Any) -> TaskRequest:  # type: ignore[override]
        """Start a job, or queue it until there is a free slot.

        Celery passes its own tracer and the arguments for it; only the arguments are used.
        """
        _celery_tracer, arguments, _keywords = call
        for limit in ("soft_timeout", "timeout"):
            options[limit] = options.get(limit) or self.options.get(limit)
        job = TaskRequest(next(self._numbers), arguments, options, self._terminate)
        self._waiting.append(job)
        self._admit()
        return job

    def terminate_job(self, pid: int, signal: object = None) -> None:  # noqa: ARG002
        """Cancel the running job that has this number."""
        if job := self._running.get(pid):
            self._terminate(job)

    def grow(self, n: int = 1) -> None:
        """Add `n` slots."""
        if self.limit + n > MAX_SLOTS:
            raise ValueError(f"a pool has at most {MAX_SLOTS} slots")
        self.limit += n
        self._admit()

    def shrink(self, n: int = 1) -> None:
        """Remove `n` slots; running jobs are not interrupted."""
        if n >= self.limit:
            raise ValueError("a pool keeps at least one slot")
        self.limit -= n

    def on_stop(self) -> None:
        """Wait for running jobs, cancel those that outlast the grace period, close the lifespan.

        A worker that is drained by order waits for them first, as long as the order lets it.
        """
        self._stop(self.grace_s)

    def on_terminate(self) -> None:
        """Cancel all jobs and close the lifespan."""
        self._stop(0.0)

    @property
    def num_processes(self) -> int:
        """The number of usable slots: Celery takes no more hints than this at a time."""
        stuck = len(self._executor.stuck) if self._loop else 0
        return int(self.limit) - stuck

    def _get_info(self) -> dict[str, Any]:
        """Return what `celery inspect stats` shows for this pool."""
        info: dict[str, Any] = super()._get_info()  # type: ignore[misc]
        if self._loop:
            info |= {
                "running": len(self._running),
                "waiting": len(self._waiting),
                "stuck": len(self._executor.stuck),
                "loop-lag-s": round(self._loop.lag_s, 3),
            }
        return info

    def _admit(self) -> None:
        """Start waiting jobs while there are free slots."""
        while self._loop and self._waiting and self._has_slot():
            job = self._waiting.popleft()
            self._running[job.number] = job
            self._loop.call_soon(self._executor.start, job)
            # Now Celery acknowledges the message; it terminates the job at once if it was revoked.
            job.on_accepted(job.number, time.monotonic())

    def _has_slot(self) -> bool:
        return not self._stopping and len(self._running) < self.limit

    def _terminate(self, job: TaskRequest) -> None:
        """Cancel a job whose end Celery announces itself."""
        if job.number in self._running:
            if not job.settled and self._loop:
                job.settled = True
                self._loop.call_soon(self._executor.cancel, job)
        elif job in self._waiting:
            self._waiting.remove(job)
            # Celery announces and acknowledges a revoked job only once it was accepted.
            job.on_accepted(job.number, time.monotonic())

    def _limit_reached(self, job: TaskRequest, soft: bool) -> None:  # noqa: FBT001 Celery's own signature
        if not job.settled:
            job.settled = not soft
            job.on_timeout(soft, job.soft_limit_s if soft else job.hard_limit_s)

    def _ended(self, job: TaskRequest, outcome: TaskOutcome) -> None:
        del self._running[job.number]
        self._admit()
        if not job.settled:
            job.on_ended(outcome)

    def _watch(self) -> None:
        full = len(state.reserved_requests) >= self.num_processes
        if full or not self.app.amqp.queues.consume_from:
            CONSUMER_HEARTBEAT.beat()  # without a free slot or a queue, Celery asks for no hints
        if self._loop and self._loop.lag_s > LAG_LIMIT_S:
            emit(EventLoopBlocked, lag_s=self._loop.lag_s, place=self._loop.current_line)

    def _stop(self, grace_s: float) -> None:
        """Stop the pool. Further calls, also from a signal handler meanwhile, change nothing.

        Runs on the hub's thread while the hub does not, so calls handed over by the loop's thread
        are made here. Before a cold stop Celery has cancelled all jobs; that stop comes from
        Celery's signal handler, which may interrupt a warm stop.
        """
        self._stopping = True
        CONSUMER_HEARTBEAT.end()
        self._drain(DRAIN.longest_s, lambda: self._is_settled() or not DRAIN.has_time)
        self._drain(grace_s, self._is_settled)
        for job in list(self._running.values()):
            self._terminate(job)
        self._drain(CANCEL_TIMEOUT_S, lambda: not self._running)
        loop, self._loop = self._loop, None
        if loop and not loop.stop(CANCEL_TIMEOUT_S):
            emit(EventLoopNotStopped, waited_s=CANCEL_TIMEOUT_S)
            force_exit_after(EXIT_TIMEOUT_S)

    def _is_settled(self) -> bool:
        return all(job.settled for job in self._running.values())

    def _drain(self, limit_s: float, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + limit_s
        while not done() and time.monotonic() < deadline:
            self._handoff.drain(_DRAIN_TICK_S)
            if any(not job.settled for job in self._running.values()):
                # A worker in a warm stop is alive, and may report that from a timer. All jobs are
                # settled if this is a signal handler, where timers must not be fired.
                self._hub.fire_timers()

    def _on_hub_thread(self, function: Callable[..., object]) -> Callable[..., None]:
        return lambda *arguments: self._handoff.post(partial(function, *arguments))


def pool_class(lifespan: Lifespan, *, grace_s: float) -> type[TaskPool]:
    """Return a pool class, for Celery's `worker_pool`, with this lifespan and grace period."""
    members = {"__module__": __name__, "lifespan": staticmethod(lifespan), "grace_s": grace_s}
    return type("TaskPool", (TaskPool,), members)


def _refuse_to_start(reason: str) -> NoReturn:
    """Log one line and end the worker."""
    logger.critical("cannot start: %s", reason)
    raise WorkerShutdown(EX_FAILURE)
