"""The reconciler's look: whether every job and turn is where its state says that it must be."""

from __future__ import annotations

from collections.abc import AsyncIterator

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger.records import Inconsistency
from afterword.shared.ledger.shard import Shards
from afterword.shared.names import Keys


class Gaps:
    """Compares records with the places that bring them on; there must be none missing."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards to look through."""
        self._shards = shards

    async def find(self, *, mend: bool = False) -> AsyncIterator[Inconsistency]:
        """Look at every record, a hundred in one moment; with `mend`, put back what is missing.

        What is found is a bug, ours or of whoever wrote to the Redis: scripts leave no gap.
        """
        for keys in self._shards.all:
            async for gap in self._in(keys, mend=mend):
                yield gap

    async def take_turn(self, every_ms: int) -> bool:
        """Return true to one caller in so many milliseconds: one look is enough for a fleet."""
        key = f"{self._shards.all[0].root}:reconciled"
        return bool(await self._shards.call("SET", key, 1, "NX", "PX", every_ms))

    async def _in(self, keys: Keys, *, mend: bool) -> AsyncIterator[Inconsistency]:
        prefix = keys.job("")
        async for page in self._shards.scan(f"{prefix}*"):
            ids = [key.removeprefix(prefix) for key in page]
            (found,) = await self._shards.run(
                "maintenance/inconsistencies", keys, int(mend), RECORD_VERSION, *ids
            )
            for job_id, what in zip(found[::2], found[1::2], strict=True):
                yield Inconsistency(job_id, what)
