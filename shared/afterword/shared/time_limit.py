"""Time limits for what a task awaits, at a third of the cost of `asyncio.timeout_at`.

A reply sets seven and hardly ever reaches one. With a timer for each, the loop's heap would hold
thousands that were cancelled, and would compare them in Python.
"""

from __future__ import annotations

import asyncio
import math
import threading
from types import TracebackType

#: Limits within the same slice of time share its timer, so one may be reached that much later.
SLICE_S = 1 / 128

#: The same of limits that are more than `_FAR_S` away.
_FAR_SLICE_S = 1 / 8
_FAR_S = 2.0


class TimeLimit:
    """Cancels what its task awaits inside when the loop's clock shows `when`: a `TimeoutError`."""

    __slots__ = ("_cancels_before", "_limits", "_reached", "_task", "_when")

    def __init__(self, when: float) -> None:
        self._when = when
        self._reached = False

    def __enter__(self) -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._task, self._cancels_before = task, task.cancelling()
        slice_s = _FAR_SLICE_S if self._when > loop.time() + _FAR_S else SLICE_S
        self._limits = _slices.limits_at(loop, math.ceil(self._when / slice_s) * slice_s)
        self._limits.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        if not self._reached:
            self._limits.discard(self)
        elif self._task.uncancel() <= self._cancels_before and kind is asyncio.CancelledError:
            raise TimeoutError

    def reach(self) -> None:
        """Cancel what is awaited."""
        self._reached = True
        self._task.cancel()


class _Slices(threading.local):
    """The limits of the loop that runs on this thread, by when the timer of their slice ends."""

    loop: asyncio.AbstractEventLoop | None = None
    limits: dict[float, set[TimeLimit]]

    def limits_at(self, loop: asyncio.AbstractEventLoop, when: float) -> set[TimeLimit]:
        """Return the limits of a slice; start its timer if it has none."""
        if self.loop is not loop:
            self.loop, self.limits = loop, {}
        limits = self.limits.get(when)
        if limits is None:
            limits = self.limits[when] = set()
            loop.call_at(when, self._end, when)
        return limits

    def _end(self, when: float) -> None:
        for limit in self.limits.pop(when):
            limit.reach()


_slices = _Slices()
