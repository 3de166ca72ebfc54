"""Removes what a paused writer added to a turn after its user had changed the turn's memories."""

from __future__ import annotations

from afterword.shared.events import LateCopiesRemoved
from afterword.shared.ledger.memory_requests import MemoryRequests
from afterword.shared.ledger.records import DuplicateCheck
from afterword.shared.names import owner_of
from afterword.shared.observer import emit
from afterword.workers.background.turn_checks import check_each
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
        await check_each(await self._requests.due_late_copies(), self._check, self._timeout_s)

    async def _check(self, turn: DuplicateCheck) -> None:
        owner = owner_of(turn.lane)
        found = await self._memories.find(owner, turn.turn_id)
        unnamed = [memory_id for memory_id in found if memory_id not in turn.memory_ids]
        late = [one for one in unnamed if not await self._was_migrated(owner, one, turn)]
        if late:
            await self._memories.remove(owner, late)
            emit(LateCopiesRemoved, copies=len(late))
        await self._requests.finish_late_copies(turn.turn_id)

    async def _was_migrated(self, owner: str, memory_id: str, turn: DuplicateCheck) -> bool:
        """Return whether the ledger names it by the id that it had in another backend."""
        memory = await self._memories.get(owner, memory_id)
        return memory is not None and memory.copied_from in turn.memory_ids
