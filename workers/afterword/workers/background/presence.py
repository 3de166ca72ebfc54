"""A worker's presence in the ledger: its heartbeat, whether it is to drain, and its leaving."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.events import WorkerDraining
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.ledger.records import TaskHealth
from afterword.shared.observer import emit

#: How long a worker that ends tries to say so; its heartbeat runs out in any case.
LEAVE_TIMEOUT_S = 2.0


class Presence:
    """Sends heartbeats under a name, and begins to drain, once, when an operator's order says so.

    The name may be used again by a later process: a token tells the two apart, so that an order
    ends the worker that it was given for and not the one that took its place.
    """

    def __init__(self, maintenance: Maintenance, name: str, drain: Callable[[], object]) -> None:
        self._maintenance = maintenance
        self._name = name
        self._drain = drain
        self._instance = secrets.token_hex(8)
        self._queues = ""
        self._draining = False

    async def beat(self, queues: str, tasks: Sequence[TaskHealth]) -> None:
        """Record that the worker of these queues is alive, and which of its tasks are not well."""
        self._queues = queues
        ordered = await self._maintenance.record_heartbeat(
            queues, self._name, tasks, instance=self._instance, draining=self._draining
        )
        if ordered and not self._draining:
            self._draining = True
            emit(WorkerDraining)
            self._drain()

    async def leave(self) -> None:
        """Record that the worker has ended, if Redis takes that at once."""
        if not self._queues:
            return
        with suppress(LedgerUnavailable, TimeoutError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._maintenance.forget_worker(self._queues, self._name)
