"""The way from the loop's thread back to Celery's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

logger = logging.getLogger(__name__)


class Crossing:
    """Makes calls on another thread, in order; however many there are, they cost one wake-up.

    Made for one thread that calls and one that drains, which a signal handler may interrupt to
    drain some more: a `SimpleQueue` is safe against that, a lock of ours would not be.
    """

    def __init__(self, wake: Callable[[Callable[[], None]], object]) -> None:
        """Take what makes the other thread call a function soon."""
        self._wake = wake
        self._calls: SimpleQueue[Callable[[], object]] = SimpleQueue()

    def call(self, function: Callable[[], object]) -> None:
        """Have `function` called on the other thread."""
        self._calls.put(function)
        # If there was one before it, that one has woken the thread, which drains them all.
        if self._calls.qsize() == 1:
            self._wake(self.drain)

    def drain(self, wait_s: float = 0.0) -> None:
        """Make the calls that wait, on this thread; wait up to `wait_s` for the first of them."""
        with suppress(Empty):
            _make(self._calls.get(wait_s > 0, wait_s))
            while True:
                _make(self._calls.get_nowait())


def _make(function: Callable[[], object]) -> None:
    try:
        function()
    except Exception:
        # The others are owed to other jobs; Celery's own pools say it and go on as well.
        logger.exception("a callback of Celery's failed")
