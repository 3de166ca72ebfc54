"""How often the thread that talks to the broker is woken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

#: Makes another thread call a function soon.
Wake: TypeAlias = Callable[[Callable[[], None]], object]


class WakeThrottle:
    """Wakes another thread at once, and then at most once in `every_s` seconds.

    Each time the two threads take the interpreter from each other, and the longer the other one
    slept, the more it finds to do at once. To be called on an event loop.
    """

    def __init__(self, wake: Wake, every_s: float) -> None:
        self._wake = wake
        self._every_s = every_s
        self._next = 0.0

    def __call__(self, function: Callable[[], None]) -> None:
        """Have `function` called on the other thread."""
        wait_s = self._next - time.monotonic()
        if wait_s > 0:
            asyncio.get_running_loop().call_later(wait_s, self._wake_now, function)
        else:
            self._wake_now(function)

    def _wake_now(self, function: Callable[[], None]) -> None:
        self._next = time.monotonic() + self._every_s
        self._wake(function)
