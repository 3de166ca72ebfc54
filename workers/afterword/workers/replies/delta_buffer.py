"""Collects the pieces of a reply for a moment before they go into its stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from afterword.shared.errors import AfterwordError

#: Publishes one delta: its number, from 1, and its text.
Publish = Callable[[int, str], Awaitable[None]]


class DeltaBuffer:
    """Collects text and publishes it at most once in `every_s` seconds, the first piece at once.

    Attributes:
        began: when the first piece came, by the monotonic clock; None before.

    """

    def __init__(self, publish: Publish, every_s: float) -> None:
        self._publish = publish
        self._every_s = every_s
        self._gathered: list[str] = []
        self._number = 0
        self._timer: asyncio.Handle | None = None
        self._publishing: asyncio.Task[None] | None = None
        self._failed: AfterwordError | None = None
        self.began: float | None = None

    def push(self, text: str) -> None:
        """Add a piece; raise the error if publishing an earlier one failed."""
        self._raise_what_failed()
        if self.began is None:
            self.began = time.monotonic()
        self._gathered.append(text)
        if self._timer is None:
            loop = asyncio.get_running_loop()
            is_first = self._number == 0
            self._timer = (
                loop.call_soon(self._start)
                if is_first
                else loop.call_later(self._every_s, self._start)
            )

    async def take_unpublished(self) -> tuple[int, str]:
        """Stop publishing; return the number and text of the piece that was not published yet."""
        self.stop()
        if self._publishing is not None:
            await self._publishing
        self._raise_what_failed()
        return self._number + 1, "".join(self._gathered)

    def stop(self) -> None:
        """Stop publishing."""
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        if self._publishing is None or self._publishing.done():
            self._publishing = asyncio.create_task(self._publish_gathered())
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._next)

    def _next(self) -> None:
        self._timer = None
        if self._gathered:
            self._start()

    async def _publish_gathered(self) -> None:
        text = "".join(self._gathered)
        self._gathered.clear()
        self._number += 1
        try:
            await self._publish(self._number, text)
        except AfterwordError as error:
            self._failed = error

    def _raise_what_failed(self) -> None:
        if self._failed is not None:
            raise self._failed
