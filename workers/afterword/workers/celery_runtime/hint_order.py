"""Which hints a worker takes next: the oldest, or beside a backlog also the newest."""

from __future__ import annotations

from collections.abc import Callable


class HintOrder:
    """Decides for each request to the broker; called on the thread that talks to it.

    A queue is first in, first out. While jobs of a backlog are held back, every other request is
    for the newest hints instead: a job that comes now does not wait behind the whole backlog.
    """

    def __init__(self) -> None:
        self._holds_back: Callable[[], bool] = lambda: False
        self._newest = False

    def watch(self, holds_back: Callable[[], bool]) -> None:
        """Ask this from now on whether a backlog is held back, from any thread."""
        self._holds_back = holds_back

    def takes_newest(self) -> bool:
        """Return whether the next request is for the newest hints."""
        self._newest = not self._newest and self._holds_back()
        return self._newest


#: One per process: Celery creates the channels itself, so they cannot be given one.
HINT_ORDER = HintOrder()
