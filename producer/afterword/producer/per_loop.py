"""One of something for each event loop: connections belong to the loop that opened them."""

from __future__ import annotations

import asyncio
import threading
from asyncio import AbstractEventLoop
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import Generic, NamedTuple, TypeVar

from afterword.shared.closeable import AsyncCloseable

T = TypeVar("T", bound=AsyncCloseable)

#: How long closing waits for another loop to close what belongs to it.
_CLOSED_WITHIN_S = 2.0


class _Opened(NamedTuple, Generic[T]):
    one: T
    closing: AsyncGenerator[None, None]


class PerLoop(AsyncCloseable, Generic[T]):
    """Opens one `T` on each event loop that asks for it, and closes it when that loop ends.

    A program may run several loops: one after the other (`asyncio.run` twice, a loop for each test,
    Django's `async_to_sync`), or one in each thread.
    """

    def __init__(self, open_one: Callable[[], T]) -> None:
        self._open_one = open_one
        self._opened: dict[AbstractEventLoop, _Opened[T]] = {}
        self._lock = threading.Lock()

    def here(self) -> T:
        """Return the one of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._opened.get(loop) or self._open(loop)
        return found.one

    async def aclose(self) -> None:
        """Close all of them, each on its own loop."""
        with self._lock:
            opened, self._opened = self._opened, {}
        here = asyncio.get_running_loop()
        elsewhere = [
            asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_closed(each), loop))
            for loop, each in opened.items()
            if loop is not here and loop.is_running()
        ]
        if here in opened:
            await _closed(opened[here])
        if elsewhere:
            await asyncio.wait(elsewhere, timeout=_CLOSED_WITHIN_S)

    def _open(self, loop: AbstractEventLoop) -> _Opened[T]:
        with self._lock:
            for other in [one for one in self._opened if one.is_closed()]:
                del self._opened[other]
            one = self._open_one()
            self._opened[loop] = _Opened(one, _closing(one))
            return self._opened[loop]


async def _closed(opened: _Opened[T]) -> None:
    await opened.closing.aclose()


def _closing(one: AsyncCloseable) -> AsyncGenerator[None, None]:
    """Return a generator that closes something when it is closed itself.

    A loop closes the generators that were begun on it when it is shut down, as `asyncio.run` does
    with its own: nothing else tells that a loop is about to end.
    """

    async def until_closed() -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await one.aclose()

    begun = until_closed()
    with suppress(StopIteration):
        begun.asend(None).send(None)
    return begun
