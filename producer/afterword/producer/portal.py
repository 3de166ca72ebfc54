"""One event loop in a thread, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


class Portal:
    """Runs coroutines on an event loop in a thread of its own and hands back what they return."""

    def __init__(self) -> None:
        """Start the thread."""
        self.pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="afterword-producer", daemon=True
        )
        self._thread.start()
        _open.add(self)

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine and return its result; an interrupt of the caller cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except (KeyboardInterrupt, CancelledError):
            future.cancel()
            raise

    def make(self, build: Callable[[], Result]) -> Result:
        """Run a plain function on the loop's thread and return its result."""

        async def built() -> Result:
            return build()

        return self.call(built())

    def iterate(self, items: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        """Yield what an async generator on the loop gives; close it when the caller stops."""

        async def next_item() -> tuple[Result] | None:
            async for item in items:
                return (item,)
            return None

        try:
            while (found := self.call(next_item())) is not None:
                yield found[0]
        finally:
            if not self.closed:  # otherwise it has ended with the loop
                self.call(items.aclose())

    @property
    def closed(self) -> bool:
        """Return whether the loop has ended, and everything on it."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Stop the thread."""
        _open.discard(self)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def let_go(self) -> None:
        """Detach this copy, which a fork has made, from the original.

        The kernel keeps one list of awaited sockets for both. When the child collects its copies
        of the connections they leave that list, and the parent would never hear of them again.
        """
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), self._selector.fileno(), inheritable=False)


_open: weakref.WeakSet[Portal] = weakref.WeakSet()


def _let_go() -> None:
    for portal in _open:
        portal.let_go()


os.register_at_fork(after_in_child=_let_go)
