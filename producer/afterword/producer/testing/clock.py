"""Time in a test: it stands still until the test, or whoever waits for a job, moves it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from afterword.shared.arguments import Moment, Seconds, checked

#: Why a synchronous caller cannot wait on a clock without `auto_advance`.
STANDS_STILL = (
    "the fake clock does not move by itself (auto_advance=False): "
    "call clock.advance() before waiting for the job"
)

_START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeClock:
    """A clock that only moves when it is told to; nothing ever sleeps.

    Args:
        start: the time at first, with its time zone.
        auto_advance: whether waiting for a job or streaming it moves the clock to the next event.
            Without it, an asynchronous caller waits until `advance` is called; a synchronous one
            gets a `RuntimeError`, because nothing could ever wake it.

    """

    @checked
    def __init__(self, start: Moment = _START, *, auto_advance: bool = True) -> None:
        self.auto_advance = auto_advance
        self._start = start
        self._elapsed_s = 0.0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return self._elapsed_s

    def now(self) -> datetime:
        """Return the time."""
        return self.at(self._elapsed_s)

    def at(self, elapsed_s: float) -> datetime:
        """Return the time at so many seconds since the start."""
        return self._start + timedelta(seconds=elapsed_s)

    @checked
    def advance(self, seconds: Seconds) -> None:
        """Move the clock forward, and wake the asynchronous callers that wait."""
        self.advance_to(self._elapsed_s + seconds)

    def advance_to(self, elapsed_s: float) -> None:
        """Move the clock to so many seconds since the start; it never moves back."""
        self._elapsed_s = max(self._elapsed_s, elapsed_s)
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    async def moved(self) -> None:
        """Wait until the clock has moved; raise `RuntimeError` without an event loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(STANDS_STILL) from None
        waiter = loop.create_future()
        self._waiters.append(waiter)
        await waiter


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
