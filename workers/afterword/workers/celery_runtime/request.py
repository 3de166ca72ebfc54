"""One job on its way through the pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any


class TaskRequest:
    """What Celery asked for, and where it wants to hear about it.

    Celery keeps a weak reference to it and calls `terminate`. The two threads share it, and
    each writes only its own fields.
    """

    #: Hub's: Celery was told how this ends, so that its own end is no news any more.
    settled = False
    #: Loop's: the coroutine, and why it was cancelled.
    task: asyncio.Task[Any] | None = None
    cause: Exception | None = None

    def __init__(
        self,
        number: int,
        args: Sequence[Any],
        options: Mapping[str, Any],
        on_terminate: Callable[[TaskRequest], object],
    ) -> None:
        """Take what Celery hands to a pool: the arguments of its tracer, and its options."""
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
        """End it: Celery says so of a revoked job, with a signal that means nothing here."""
        self._on_terminate(self)
