"""An ordered end: a worker takes no more hints, finishes what it holds, however long, and ends."""

from __future__ import annotations

from celery.platforms import EX_OK
from celery.worker import state


class _Ordered(int):
    """The exit code of a worker that was drained by order: another object than a signal sets."""


class Drain:
    """Ends the worker without haste; a signal that comes meanwhile ends it as it always does."""

    def __init__(self) -> None:
        self._code = _Ordered(EX_OK)
        self.longest_s = 0.0

    def begin(self, longest_s: float) -> None:
        """Have Celery stop this worker; jobs that run then may take up to `longest_s` seconds."""
        self.longest_s = longest_s
        state.should_stop = self._code  # type: ignore[assignment]

    @property
    def has_time(self) -> bool:
        """Whether nothing but the order stops this worker."""
        return state.should_stop is self._code


#: One per process: Celery creates the pool itself, so it cannot be given one.
DRAIN = Drain()
