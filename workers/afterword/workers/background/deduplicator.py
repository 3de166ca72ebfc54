"""The repair: what more than one writer may have stored is looked at again, and kept once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from afterword.shared.errors import AfterwordError, ProviderError
from afterword.shared.events import DuplicatesRemoved, PeriodicTaskFailed, RepairPostponed
from afterword.shared.ledger.records import DuplicateCheck
from afterword.shared.ledger.turns import DuplicateChecks
from afterword.shared.names import lane_tag, owner_of
from afterword.shared.observer import bound, emit
from afterword.shared.settings import Settings
from afterword.workers.ports import Memories


class Repairer:
    """Takes out what a paused writer added after another one had stored the same turn.

    Two of them may repair the same turn at once: both keep the same attempt's memories.
    """

    def __init__(self, settings: Settings, repairs: DuplicateChecks, memories: Memories) -> None:
        """Take where the turns are that are due, and where they are stored."""
        self._settings = settings
        self._repairs = repairs
        self._memories = memories

    async def repair_for_ever(self) -> None:
        """Repair what is due, at times spread out so that workers do not march in step."""
        while True:
            try:
                await self.repair_due()
            except AfterwordError as error:
                emit(PeriodicTaskFailed, task="repair", error=type(error).__name__, failures=1)
            await asyncio.sleep(self._settings.sweep_s * random.uniform(0.5, 1.5))  # noqa: S311 no secret

    async def repair_due(self) -> None:
        """Repair what is due; what cannot be told now comes back later."""
        for turn in await self._repairs.due():
            with bound(job_id=turn.turn_id, lane=lane_tag(turn.lane)):
                await self._repair_or_postpone(turn)

    async def _repair_or_postpone(self, turn: DuplicateCheck) -> None:
        try:
            async with asyncio.timeout(self._settings.write_timeout_s):
                await self._repair(turn)
        except (TimeoutError, ProviderError) as error:
            emit(RepairPostponed, code=getattr(error, "code", "write_timeout"))

    async def _repair(self, turn: DuplicateCheck) -> None:
        owner = owner_of(turn.lane)
        copies = await self._memories.copies(owner, turn.turn_id)
        kept = _kept(copies, turn.memory_ids)
        extra = [memory_id for copy in copies if copy is not kept for memory_id in copy]
        if extra:
            await self._memories.remove(owner, extra)
            emit(DuplicatesRemoved, copies=len(copies))
        await self._repairs.finish(turn.turn_id, kept)


def _kept(copies: Sequence[Sequence[str]], recorded: Sequence[str]) -> Sequence[str]:
    """Return the copy that the ledger has on record, the first one if it has none of them."""
    return max(copies, key=lambda ids: len({*ids} & {*recorded}), default=recorded)
