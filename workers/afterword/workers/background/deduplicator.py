"""The deduplicator: removes what two writers may have stored of the same turn."""

from __future__ import annotations

from collections.abc import Sequence

from afterword.shared.events import DuplicatesRemoved
from afterword.shared.ledger.records import DuplicateCheck
from afterword.shared.ledger.turns import DuplicateChecks
from afterword.shared.names import owner_of
from afterword.shared.observer import emit
from afterword.workers.background.turn_checks import check_each
from afterword.workers.ports import Memories


class Deduplicator:
    """Removes what a paused writer added after another one had stored the same turn.

    Two workers may check the same turn at once: both keep the memories of the same attempt.
    """

    def __init__(self, checks: DuplicateChecks, memories: Memories, timeout_s: float) -> None:
        self._checks = checks
        self._memories = memories
        self._timeout_s = timeout_s

    async def check_due_turns(self) -> None:
        """Check the turns that are due; a turn that mem0 cannot tell about now comes back later."""
        await check_each(await self._checks.due(), self._check, self._timeout_s)

    async def _check(self, turn: DuplicateCheck) -> None:
        owner = owner_of(turn.lane)
        copies = await self._memories.find_copies(owner, turn.turn_id)
        kept = _recorded_copy(copies, turn.memory_ids)
        extra = [memory_id for copy in copies if copy is not kept for memory_id in copy]
        if extra:
            await self._memories.remove(owner, extra)
            emit(DuplicatesRemoved, copies=len(copies))
        await self._checks.finish(turn.turn_id, kept)


def _recorded_copy(copies: Sequence[Sequence[str]], recorded: Sequence[str]) -> Sequence[str]:
    """Return the copy that the ledger has on record, or the first one if it has none of them."""
    return max(copies, key=lambda ids: len({*ids} & {*recorded}), default=recorded)
