"""The witness: remembers how far the ledger had come, and alarms when it has gone back."""

from __future__ import annotations

import asyncio

from afterword.shared.errors import AfterwordError
from afterword.shared.events import LedgerRolledBack, PeriodicTaskFailed
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.names import Keys
from afterword.shared.observer import emit

#: Left out beyond the newest number that was seen: others may have come after it.
MARGIN = 1_000_000


class RollbackDetector:
    """Looks at the numbers of the ledger, in every worker, for as long as it lives."""

    def __init__(self, numbers: Maintenance, every_s: float) -> None:
        """Take how often to look."""
        self._numbers = numbers
        self._every_s = every_s
        self._seen: dict[Keys, int] = {}

    async def look_for_ever(self) -> None:
        """Look again and again."""
        while True:
            try:
                await self.look()
            except AfterwordError as error:
                emit(PeriodicTaskFailed, task="look", error=type(error).__name__, failures=1)
            await asyncio.sleep(self._every_s)

    async def look(self) -> None:
        """Look once; of a shard that went back, leave out the numbers that were given before.

        Otherwise a fence would be given twice, and whoever holds the first one could write.
        """
        for keys, newest in (await self._numbers.sequences()).items():
            seen = self._seen.get(keys, 0)
            if newest < seen:
                emit(LedgerRolledBack, seen=seen, found=newest)
                newest = await self._numbers.skip_sequence(keys, seen - newest + MARGIN)  # noqa: PLW2901
            self._seen[keys] = newest
