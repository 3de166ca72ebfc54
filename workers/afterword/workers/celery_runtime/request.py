"""One task run, as the pool keeps it from Celery's call until the coroutine has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class TaskRequest:
    """The arguments of a task, its time limits, and Celery's callbacks for it.

    Celery keeps a weak reference to it and calls `terminate`. Two threads share it; each field
    below is written by one of them only.
    """

    #: Written by the hub's thread: Celery knows how this request ends, so the coroutine's own end
    #: is not reported any more.
    settled = False
    #: Written by the event loop's thread: the running coroutine, and why it was cancelled.
    task: asyncio.Task[Any] | None = None
    cause: Exception | None = None

    def __init__(
        self,
        number: int,
        args: Sequence[Any],
        options: Mapping[str, Any],
        on_terminate: Callable[[TaskRequest], object],
    ) -> None:
        """Read `args`, which Celery meant for its own tracer, and the callbacks in `options`."""
        self.number = number
        self.name: str = args[0]
        self.id: str = args[1]
        self.request: dict[str, Any] = args[2]
        self.on_accepted: Callable[..., object] = options["accept_callback"]
        self.on_ended: Callable[..., object] = options["callback"]
        self.on_timeout: Callable[..., object] = options["timeout_callback"]
        self.soft_limit_s: float | None = options.get("soft_timeout")
        self.hard_limit_s: float | None = options.get("timeout")
        self._on_terminate = on_terminate

    def __str__(self) -> str:
        return f"{self.name}[{self.id}]"

    def terminate(self, signal: object) -> None:  # noqa: ARG002
        """Cancel the request. Celery calls this for a revoked task; the signal is ignored."""
        self._on_terminate(self)
