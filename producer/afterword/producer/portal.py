"""An event loop in a background thread, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import selectors
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result")


class Runner(ABC):
    """Runs coroutines for a caller that waits for their results. `pid` is the process it is of."""

    def __init__(self) -> None:
        self.pid = os.getpid()

    @abstractmethod
    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine and return its result."""

    @abstractmethod
    def make(self, build: Callable[[], Result]) -> Result:
        """Run a plain function where coroutines are run, and return its result."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """True once nothing can be run any more."""

    @abstractmethod
    def close(self) -> None:
        """Stop running coroutines."""

    def iterate(self, items: AsyncGenerator[Result, None]) -> Generator[Result, None, None]:
        """Yield what an async generator yields; close it when the caller stops early."""
        try:
            while (found := self.call(_next(items))) is not None:
                yield found[0]
        finally:
            if not self.closed:  # otherwise it has ended with its loop
                self.call(items.aclose())


class Portal(Runner):
    """Runs coroutines on an event loop in a thread of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = selectors.DefaultSelector()
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="afterword-producer", daemon=True
        )
        self._thread.start()
        _open.add(self)

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine and return its result; Ctrl-C in the caller cancels it."""
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

    @property
    def closed(self) -> bool:
        """True once the loop has ended, and everything on it."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Stop the loop and join its thread."""
        _open.discard(self)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def detach(self) -> None:
        """Detach this copy, which a fork has made, from the original.

        Both processes share one epoll instance. When the child collects its copies of the
        connections they would leave that instance, and the parent would never be woken by them
        again.
        """
        with Path(os.devnull).open() as nothing:
            os.dup2(nothing.fileno(), self._selector.fileno(), inheritable=False)


async def _next(items: AsyncGenerator[Result, None]) -> tuple[Result] | None:
    """Return the next item in a tuple, or None at the end."""
    async for item in items:
        return (item,)
    return None


_open: weakref.WeakSet[Portal] = weakref.WeakSet()


def _detach_all() -> None:
    for portal in _open:
        portal.detach()


os.register_at_fork(after_in_child=_detach_all)
