"""The event loop of a worker process, on its own thread, and how the process ends with it."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

from celery.platforms import EX_FAILURE
from celery.worker import state

from afterword.shared.error_location import error_location, error_name, frame_location
from afterword.shared.events import ProcessKilled, RuntimeBroken
from afterword.shared.observer import emit

#: Creates what jobs need (clients, background work) as a context that is open while jobs run.
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

#: What the lifespan yielded. `LoopThread.call_soon` sets it for everything it calls.
RUNTIME: contextvars.ContextVar[Any] = contextvars.ContextVar("RUNTIME")

#: New objects between two runs of the garbage collector. Python's own 700 is reached within a
#: handful of jobs and costs a tenth of the time of each.
_COLLECT_AFTER = 10_000

_HEARTBEAT_S = 0.25
_START_POLL_S = 0.2


class LoopThread:
    """Runs one event loop while its lifespan is open, and measures how late the loop is."""

    def __init__(self, lifespan: Lifespan, on_lost: Callable[[], object]) -> None:
        """Call `on_lost`, on the loop's thread, if the lifespan ends without `stop`."""
        self._lifespan = lifespan
        self._on_lost = on_lost
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="afterword-loop", daemon=True)

    def start(self, poll: Callable[[], object]) -> None:
        """Start the thread and wait until the lifespan is open; raise what opening it raises.

        Calls `poll` repeatedly while waiting. If `poll` raises, the wait ends and the thread is
        abandoned: it is a daemon and ends with the process.
        """
        self._thread.start()
        while not wait([self._opened], timeout=_START_POLL_S).done:
            poll()
        self._opened.result()

    def call_soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Have `function` called on the loop, with `RUNTIME` set, in the order of these calls."""
        self._loop.call_soon_threadsafe(function, *arguments, context=self._context)

    def stop(self, timeout_s: float) -> bool:
        """Close the lifespan and the loop; return whether the thread ended within `timeout_s`."""
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._stop_requested.set)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def lag_s(self) -> float:
        """How long the loop has been blocked, in seconds; 0 when it is on time."""
        return max(0.0, time.monotonic() - self._beaten_at - _HEARTBEAT_S)

    @property
    def current_line(self) -> str:
        """The file and line that the loop's thread is executing."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        return frame_location(frame, frame.f_lineno) if frame else "nowhere"

    def _run(self) -> None:
        try:
            asyncio.run(self._run_lifespan())
        except BaseException as error:  # noqa: BLE001 raised by `start`, or logged
            if not self._opened.done():
                self._opened.set_exception(error)
                return
            emit(RuntimeBroken, error=error_name(error), place=error_location(error))
        if not self._stop_requested.is_set():
            self._on_lost()

    async def _run_lifespan(self) -> None:
        gc.disable()  # opening imports the providers, with millions of objects that all stay
        self._loop = asyncio.get_running_loop()
        self._stop_requested = asyncio.Event()
        async with self._lifespan() as runtime:
            RUNTIME.set(runtime)
            self._context = contextvars.copy_context()
            self._beat()
            _relax_garbage_collector()
            self._opened.set_result(None)
            await self._stop_requested.wait()

    def _beat(self) -> None:
        self._beaten_at = time.monotonic()
        self._loop.call_later(_HEARTBEAT_S, self._beat)


def stop_worker() -> None:
    """Have Celery stop this worker as after `SIGTERM`, but with a failure's exit code."""
    state.should_stop = EX_FAILURE  # type: ignore[assignment]


def force_exit_after(limit_s: float) -> None:
    """Kill this process, with a failure's exit code, if it still runs after `limit_s` seconds.

    At exit Python joins every thread of an executor. One that hangs in a call, for example of
    mem0, would keep the process alive for ever.
    """
    timer = threading.Timer(limit_s, _force_exit, (limit_s,))
    timer.daemon = True  # a process that ends in time does not wait for it
    timer.start()


def _force_exit(limit_s: float) -> None:
    emit(ProcessKilled, waited_s=limit_s)
    os._exit(EX_FAILURE)


def _relax_garbage_collector() -> None:
    """Exclude everything allocated so far, mostly imported code, from collection; collect less."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
