"""The event loop of a worker process, on a thread of its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any, TypeAlias

from afterword.workers.celery_runtime.error_location import whereabouts

logger = logging.getLogger(__name__)

#: Makes what jobs need (clients, background work) as a context that is open while jobs run.
Lifespan: TypeAlias = Callable[[], AbstractAsyncContextManager[object]]

#: What the lifespan gave; set in everything that runs on the loop by `LoopThread.call`.
RUNTIME: contextvars.ContextVar[Any] = contextvars.ContextVar("RUNTIME")

#: New objects between two looks for cycles among them. Python's own 700 is a handful of jobs, and
#: costs a tenth of the time of each.
_COLLECT_AFTER = 10_000

_BEAT_S = 0.25
_GLANCE_S = 0.2


class LoopThread:
    """ReplayRuns one event loop as long as its lifespan is open, and says how late the loop is."""

    def __init__(self, lifespan: Lifespan, on_lost: Callable[[], object]) -> None:
        """Take the lifespan, and what to call, on the loop's thread, if it ends unasked."""
        self._lifespan = lifespan
        self._on_lost = on_lost
        self._open: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="afterword-loop", daemon=True)

    def start(self, glance: Callable[[], object]) -> None:
        """Open the lifespan on the loop; raise what went wrong with that.

        Meanwhile `glance` is called again and again. If it raises, the wait is over and the
        thread is left to itself: it ends with the process.
        """
        self._thread.start()
        while not wait([self._open], timeout=_GLANCE_S).done:
            glance()
        self._open.result()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have `function` called on the loop, with `RUNTIME` set, in the order of the calls."""
        self._loop.call_soon_threadsafe(function, *arguments, context=self._context)

    def stop(self, patience_s: float) -> bool:
        """Close the lifespan and the loop; return whether that was done within `patience_s`."""
        with suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._halt.set)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    @property
    def lag_s(self) -> float:
        """Return for how long the loop has not had its turn, in seconds."""
        return max(0.0, time.monotonic() - self._beaten - _BEAT_S)

    @property
    def place(self) -> str:
        """Return the line of code that the loop's thread is at."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001
        return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "nowhere"

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001 told to who waits, or to the log
            if not self._open.done():
                self._open.set_exception(error)
                return
            logger.critical("the runtime broke: %s", whereabouts(error))
        if not self._halt.is_set():
            self._on_lost()

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._halt = asyncio.Event()
        async with self._lifespan() as runtime:
            RUNTIME.set(runtime)
            self._context = contextvars.copy_context()
            self._beat()
            _spare_collector()
            self._open.set_result(None)
            await self._halt.wait()

    def _beat(self) -> None:
        self._beaten = time.monotonic()
        self._loop.call_later(_BEAT_S, self._beat)


def _spare_collector() -> None:
    """Keep what is there for good, mostly imported code, out of every search for garbage."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECT_AFTER, *gc.get_threshold()[1:])
