"""How the event loop's thread passes calls to Celery's thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

from afterword.shared.error_location import error_location
from afterword.shared.events import CallbackFailed
from afterword.shared.observer import emit

#: Makes another thread call a function soon.
Wake: TypeAlias = Callable[[Callable[[], None]], object]


class ThreadHandoff:
    """Makes calls on another thread, in order, with one wake-up for all that are waiting.

    Made for one thread that posts and one that drains. A signal handler may interrupt a drain and
    drain as well: `SimpleQueue` is reentrant, a lock of our own would deadlock.
    """

    def __init__(self, wake: Wake) -> None:
        self._wake = wake
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def post(self, function: Callable[[], object]) -> None:
        """Have `function` called on the other thread."""
        self._calls.put(function)
        # A call that was waiting before has woken the thread already, which drains them all.
        if self._calls.qsize() == 1:
            self._wake(self.drain)

    def drain(self, wait_s: float = 0.0) -> None:
        """Make all waiting calls on this thread; wait up to `wait_s` for the first."""
        with suppress(Empty):
            _call(self._calls.get(wait_s > 0, wait_s))
            while True:
                _call(self._calls.get_nowait())


class WakeThrottle:
    """Wakes another thread at once, then at most once every `interval_s` seconds.

    With each wake-up the two threads take the interpreter lock from each other, so fewer wake-ups
    with more work each are cheaper. Call it on an event loop.
    """

    def __init__(self, wake: Wake, interval_s: float) -> None:
        self._wake = wake
        self._interval_s = interval_s
        self._next = 0.0

    def __call__(self, function: Callable[[], None]) -> None:
        """Have `function` called on the other thread."""
        wait_s = self._next - time.monotonic()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._wake_now, function)
        else:
            self._wake_now(function)

    def _wake_now(self, function: Callable[[], None]) -> None:
        self._next = time.monotonic() + self._interval_s
        self._wake(function)


def _call(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception as error:  # noqa: BLE001 the remaining calls belong to other jobs
        emit(
            CallbackFailed,
            error=type(error).__name__,
            place=error_location(error, anywhere=True),
        )
