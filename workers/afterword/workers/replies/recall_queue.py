"""Searches take turns, and a backlog is taken up no faster than it can be searched for."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

#: Jobs that have waited for longer than this are a backlog.
BACKLOG_S = 5.0

#: A backlog is paced for this long. What lasts longer is an overload: then replies come first.
LONGEST_PACE_S = 900.0

#: An overload is over once recall could keep up for this long.
CALM_S = 60.0

Granted = asyncio.Future[None]


class RecallQueue:
    """Lets at most `size` searches run at once; more would only make each of them late.

    Of those that wait, the one whose reply can wait the least is next. While `size` of them wait,
    jobs of a backlog are not admitted, that is, not claimed. Jobs that were taken ahead of it are
    admitted by turns with it, the newest first: many of them are of the backlog, too. Without a
    `size` nobody waits: a memory that runs elsewhere has limits of its own.
    """

    def __init__(self, size: int | None, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._running = self._waiting = 0
        self._line: list[tuple[float, int, Granted]] = []
        self._numbers = itertools.count()
        self._admitted: set[str] = set()
        self._outside: deque[tuple[str, Granted]] = deque()
        self._outside_ahead: deque[tuple[str, Granted]] = deque()
        self._by_turns = (self._outside_ahead, self._outside)
        self._ahead: set[str] = set()
        self._waited_s = 0.0
        self._paced_since = self._paced_at = -math.inf

    async def admit(self, job_id: str, *, ahead: bool = False) -> None:
        """Wait until a job may be claimed. It counts as waiting until its `turn`, or `leave`.

        `ahead` says that it came after jobs of the backlog which are still to come.
        """
        if ahead:
            self._ahead.add(job_id)
        if not self._is_full() or not self._paces():
            self._admitted.add(job_id)
            return
        granted: Granted = asyncio.get_running_loop().create_future()
        if ahead:
            self._outside_ahead.appendleft((job_id, granted))
        else:
            self._outside.append((job_id, granted))
        try:
            await granted
        except asyncio.CancelledError:
            self.leave(job_id)
            raise

    def leave(self, job_id: str) -> None:
        """Forget a job that was admitted: it does not recall, or has done so."""
        self._admitted.discard(job_id)
        self._ahead.discard(job_id)
        self._admit_next()

    def holds_back(self) -> bool:
        """Return whether jobs of a backlog wait to be admitted; any thread may ask."""
        return bool(self._outside)

    def is_overloaded(self) -> bool:
        """Return whether recall could not keep up for so long that nobody is to wait for it."""
        lasted_s = self._paced_at - self._paced_since
        return lasted_s >= LONGEST_PACE_S and self._clock() - self._paced_at < CALM_S

    @asynccontextmanager
    async def turn(
        self, job_id: str, waited_s: float, *, deadline: float, give_up_at: float
    ) -> AsyncIterator[None]:
        """Wait for a turn, the nearest deadline first, and hold it while the context is open.

        `waited_s` is how long the job has waited for a worker. Raises `TimeoutError` if no turn has
        come at `give_up_at`, by the clock of the event loop.
        """
        if job_id not in self._ahead:  # it says nothing of how old the backlog is
            self._waited_s = waited_s
        self._admitted.discard(job_id)
        if self._size is None:
            yield
            return
        async with asyncio.timeout_at(give_up_at):
            await self._take(deadline, self._size)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, deadline: float, size: int) -> None:
        if self._running < size:
            self._running += 1
            self._admit_next()
            return
        granted: Granted = asyncio.get_running_loop().create_future()
        heapq.heappush(self._line, (deadline, next(self._numbers), granted))
        self._waiting += 1
        try:
            await granted
        except asyncio.CancelledError:
            if not granted.cancelled():
                self._give_back()  # it came at the same moment
            raise
        finally:
            self._waiting -= 1
            self._admit_next()

    def _give_back(self) -> None:
        while self._line:
            _, _, granted = heapq.heappop(self._line)
            if not granted.done():
                granted.set_result(None)
                return
        self._running -= 1
        self._admit_next()

    def _is_full(self) -> bool:
        return self._size is not None and self._waiting + len(self._admitted) >= self._size

    def _paces(self) -> bool:
        """Return whether a full queue keeps jobs out: those of a backlog, for a time."""
        if self._waited_s < BACKLOG_S:
            return False
        now = self._clock()
        if now - self._paced_at >= CALM_S:
            self._paced_since = now
        self._paced_at = now
        return not self.is_overloaded()

    def _admit_next(self) -> None:
        while any(self._by_turns) and not self._is_full():
            job_id, granted = self._next_line().popleft()
            if not granted.done():
                self._admitted.add(job_id)
                granted.set_result(None)

    def _next_line(self) -> deque[tuple[str, Granted]]:
        """Return the line from which a job is admitted next; the two take turns."""
        one, other = self._by_turns
        self._by_turns = (other, one)
        return one or other
