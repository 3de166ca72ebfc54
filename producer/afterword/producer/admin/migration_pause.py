"""Lets memory workers wait while a migration compares both backends for the last time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from afterword.producer.admin.async_steering import PAUSES, AsyncSteering
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.names import MEMORIES

#: The reason of a pause begins so if it is a migration's; the name of the migration follows. So it
#: is known as that migration's also once the process that gave it was killed.
REASON: Final = "afterword migrate memories"

#: A process that was killed leaves its pause behind for so long. It is given again in good time.
PAUSE_S: Final = 300.0
_EXTEND_S = PAUSE_S / 3

#: How long writes that had begun are waited for, and how long between two looks.
_RUNNING_S, _LOOK_S = 120.0, 1.0


class MigrationPause:
    """A pause of everybody's memories, which ends by itself if its process is killed.

    Where an operator has paused them, or ends this pause, theirs is the word: nothing is given,
    and nothing of theirs is lifted; nor is the pause of a process that took the migration over.
    There is one pause for all memories: while another migration has it, this one waits. Each order
    is recorded in the audit.
    """

    def __init__(
        self,
        checked: CheckedLedger,
        by: str,
        name: str,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._checked = checked
        self._steering = AsyncSteering(lambda: checked, by)
        self._reason = f"{REASON} {name}"
        self._now = now
        self._sleep = sleep
        self._begun = False
        self._given_at: float | None = None
        self._given: SteeringOrder | None = None

    async def begin(self, meanwhile: Callable[[], Awaitable[object]]) -> None:
        """Pause memories, and wait for the writes that have begun; nothing the second time.

        `meanwhile` is called from time to time.
        """
        if self._begun:
            return
        self._begun = True
        while self._is_of_another_migration(order := await self._in_force()):
            await self._sleep(_LOOK_S)
            await meanwhile()
        if order is None or order.reason == self._reason:
            await self._give()
        end = self._now() + _RUNNING_S
        while await self._writes() and self._now() < end:
            await self._sleep(_LOOK_S)
            await meanwhile()

    async def extend(self) -> None:
        """Give the pause again if its end comes near, unless somebody else has ended it."""
        if self._given_at is None or self._now() - self._given_at < _EXTEND_S:
            return
        if self._is_ours(await self._in_force()):
            await self._give()
        else:
            self._given_at = None

    async def end(self) -> None:
        """Lift the pause, if it is still this one."""
        if self._given_at is None:
            return
        self._given_at = None
        if self._is_ours(await self._in_force()):
            await self._steering.resume("memories")

    async def _give(self) -> None:
        self._given_at = self._now()  # also if there is no answer: it may have been given
        self._given = await self._steering.pause("memories", reason=self._reason, for_s=PAUSE_S)

    def _is_ours(self, order: SteeringOrder | None) -> bool:
        """Return whether an order is the pause that this process gave last."""
        if order is None or order.reason != self._reason:
            return False
        return self._given is None or order.since <= self._given.since

    def _is_of_another_migration(self, order: SteeringOrder | None) -> bool:
        return (
            order is not None and order.reason.startswith(REASON) and order.reason != self._reason
        )

    async def _in_force(self) -> SteeringOrder | None:
        """Return the order that pauses everybody's memories."""
        for order in await self._steering.orders():
            if order.kind == PAUSES["memories"] and order.scope == "everyone":
                return order
        return None

    async def _writes(self) -> int:
        """Return how many lanes are being written."""
        ledger = await self._checked.for_reading()
        return sum(
            agenda.leased
            for shard in await ledger.maintenance.overview()
            for agenda in shard.agendas
            if agenda.name.startswith(f"{MEMORIES}.")
        )
