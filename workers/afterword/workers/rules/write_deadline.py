"""The end of a write on a thread, which nobody can stop, and which must not come too late."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from afterword.shared.errors import Unavailable


class Deadline:
    """When a write is over; whoever gives it up brings that forward."""

    def __init__(self, seconds: float) -> None:
        """Let a write take so long from now on."""
        self._at = time.monotonic() + seconds

    def give_up(self) -> None:
        """Let nothing more be written."""
        self._at = -math.inf

    @property
    def seconds_left(self) -> float:
        """Return how long the write may still take."""
        return self._at - time.monotonic()

    @contextmanager
    def observed(self) -> Iterator[None]:
        """Let what this thread writes in the context observe the deadline."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def seconds_left() -> float | None:
    """Return how long this thread's write may take, None if it is not limited.

    Raises `Unavailable` if it is over: a store asks right before it writes.
    """
    deadline = _current.get()
    if deadline is None:
        return None
    left_s = deadline.seconds_left
    if left_s <= 0:
        raise Unavailable("write_timeout")
    return left_s
