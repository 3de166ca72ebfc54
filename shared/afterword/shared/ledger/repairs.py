"""Turns that may stand in mem0 twice: when to look, and that it is done."""

from __future__ import annotations

import json
from collections.abc import Sequence

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger.records import DueRepair
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys

#: Turns of one shard that are given out at a time.
MOST_DUE = 20


class Repairs:
    """Gives out stored turns that more than one writer may have added."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards that the turns live on."""
        self._shards = shards

    async def due(self) -> Sequence[DueRepair]:
        """Return turns that are due; each comes back later until it is `done`."""
        return [repair for keys in self._shards.all for repair in await self._due(keys)]

    async def _due(self, keys: Keys) -> Sequence[DueRepair]:
        back_ms = milliseconds(self._shards.settings.repair_s)
        rows = await self._shards.run(
            "turn/due_duplicate_checks", keys, MOST_DUE, back_ms, RECORD_VERSION
        )
        turns = zip(rows[::3], rows[1::3], rows[2::3], strict=True)
        return [DueRepair(turn, lane, tuple(json.loads(ids))) for turn, lane, ids in turns]

    async def done(self, turn_id: str, memory_ids: Sequence[str]) -> None:
        """Say that a turn is stored once, as these memories."""
        await self._shards.run_for(
            "turn/finish_duplicate_check", turn_id, json.dumps(list(memory_ids))
        )
