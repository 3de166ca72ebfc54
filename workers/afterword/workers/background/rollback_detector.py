"""The rollback detector: notices that Redis lost its latest writes, and makes that safe."""

from __future__ import annotations

from afterword.shared.events import LedgerRolledBack
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.names import Keys
from afterword.shared.observer import emit

#: Numbers that are skipped beyond the newest that was seen: others may have been given out since.
MARGIN = 1_000_000


class RollbackDetector:
    """Remembers the newest sequence number of each shard, which never falls by itself.

    It falls when Redis starts from an older file, or a replica that lagged takes over.
    """

    def __init__(self, maintenance: Maintenance) -> None:
        self._maintenance = maintenance
        self._seen: dict[Keys, int] = {}

    async def check(self) -> None:
        """Compare each shard with what was seen before; skip the numbers of one that went back.

        Otherwise a fence would be given out twice, and the writer that held it first could write.
        """
        for keys, newest in (await self._maintenance.sequences()).items():
            seen = self._seen.get(keys, 0)
            if newest < seen:
                emit(LedgerRolledBack, seen=seen, found=newest)
                newest = await self._maintenance.skip_sequence(keys, seen - newest + MARGIN)  # noqa: PLW2901
            self._seen[keys] = newest
