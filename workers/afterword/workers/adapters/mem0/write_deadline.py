"""Deadlines for writes on threads: a thread cannot be stopped, but must not write too late."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from afterword.shared.errors import Unavailable


class Deadline:
    """Until when a write may commit; `give_up` ends that at once."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def give_up(self) -> None:
        """Forbid the write to commit from now on."""
        self._at = -math.inf

    @property
    def seconds_left(self) -> float:
        """How long the write may still take."""
        return self._at - time.monotonic()

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Apply the deadline to what this thread writes in the context."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def seconds_left() -> float | None:
    """Return how long this thread's write may still take, or None if it has no deadline.

    Raises `Unavailable` if it is over: a store asks right before it writes.
    """
    deadline = _current.get()
    if deadline is None:
        return None
    left_s = deadline.seconds_left
    if left_s <= 0:
        raise Unavailable("write_timeout")
    return left_s
