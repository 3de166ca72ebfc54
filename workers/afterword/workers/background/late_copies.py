"""Removes what a paused writer added to a turn after its user had changed the turn's memories."""

from __future__ import annotations

import asyncio

from afterword.shared.errors import ProviderError
from afterword.shared.events import LateCopiesRemoved, RepairPostponed
from afterword.shared.ledger.memory_requests import MemoryRequests
from afterword.shared.ledger.records import DuplicateCheck
from afterword.shared.names import lane_tag, owner_of
from afterword.shared.observer import bound, emit
from afterword.workers.ports import Memories


class LateCopyRemover:
    """Lets a turn that its user has changed keep the memories that the ledger names, and no others.

    So a deletion that was begun is completed, too, if its worker died in the middle of it.
    """

    def __init__(self, requests: MemoryRequests, memories: Memories, timeout_s: float) -> None:
        self._requests = requests
        self._memories = memories
        self._timeout_s = timeout_s

    async def check_due_turns(self) -> None:
        """Check the turns that are due; one that mem0 cannot tell about now comes back later."""
        for turn in await self._requests.due_late_copies():
            with bound(job_id=turn.turn_id, lane=lane_tag(turn.lane)):
                await self._check_or_postpone(turn)

    async def _check_or_postpone(self, turn: DuplicateCheck) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._check(turn)
        except (TimeoutError, ProviderError) as error:
            emit(RepairPostponed, code=getattr(error, "code", "write_timeout"))

    async def _check(self, turn: DuplicateCheck) -> None:
        owner = owner_of(turn.lane)
        found = await self._memories.find(owner, turn.turn_id)
        late = [memory_id for memory_id in found if memory_id not in turn.memory_ids]
        if late:
            await self._memories.remove(owner, late)
            emit(LateCopiesRemoved, copies=len(late))
        await self._requests.finish_late_copies(turn.turn_id)
