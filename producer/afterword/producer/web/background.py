"""What takes too long for a page: read in the background, and shown once it is there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from afterword.shared.closeable import AsyncCloseable

Value = TypeVar("Value")

#: For how long what was read is shown as it is, in seconds, and of how many names it is kept.
_FRESH_S = 10.0
_MOST_KEPT = 32


class BackgroundReader(AsyncCloseable, Generic[Value]):
    """Reads something by name, one name at a time, and keeps what it found for a while."""

    def __init__(
        self, read: Callable[[str], Awaitable[Value]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._reading: dict[str, asyncio.Task[Value]] = {}
        self._found: dict[str, tuple[float, Value]] = {}
        self._changed: set[str] = set()

    async def get(self, name: str, *, wait_s: float) -> Value | None:
        """Return what was found; something older, or None, if reading takes longer than `wait_s`.

        Raises what reading raised.
        """
        at, known = self._found.get(name, (0.0, None))
        if known is not None and self._clock() - at < _FRESH_S:
            return known
        task = self._reading.get(name)
        if task is None:
            task = self._reading[name] = asyncio.create_task(self._look(name))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task}, timeout=wait_s)
        return task.result() if task.done() else known

    def forget(self, name: str) -> None:
        """Read a name again when it is asked for next: it has changed."""
        self._found.pop(name, None)
        if name in self._reading:
            self._changed.add(name)

    async def _look(self, name: str) -> Value:
        try:
            async with self._one_at_a_time:
                found = await self._read_unchanged(name)
        finally:
            del self._reading[name]
        self._found.pop(name, None)
        self._found[name] = self._clock(), found
        while len(self._found) > _MOST_KEPT:
            del self._found[next(iter(self._found))]
        return found

    async def _read_unchanged(self, name: str) -> Value:
        """Read again while it is forgotten meanwhile: what was read may be from before that."""
        while True:
            self._changed.discard(name)
            found = await self._read(name)
            if name not in self._changed:
                return found

    async def aclose(self) -> None:
        """Read nothing more."""
        tasks = list(self._reading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
