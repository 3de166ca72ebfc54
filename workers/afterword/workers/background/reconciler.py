"""The reconciler: now and then one worker of the fleet looks for turns that fell through."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter

from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.maintenance import Maintenance

logger = logging.getLogger(__name__)


class Reconciler:
    """Alarms on every gap, and mends it; runs in every worker, at work in one of them."""

    def __init__(self, gaps: Maintenance, every_s: float) -> None:
        """Take how often the fleet looks."""
        self._gaps = gaps
        self._every_s = every_s

    async def reconcile_for_ever(self) -> None:
        """Look whenever it is this worker's turn."""
        while True:
            await asyncio.sleep(self._every_s * random.uniform(0.5, 1))  # noqa: S311 no secret
            try:
                if await self._gaps.claim_reconciliation(round(self._every_s * 1000)):
                    await self.reconcile()
            except AfterwordError as error:
                logger.warning("could not reconcile: %s", error)

    async def reconcile(self) -> None:
        """Look once, at everything."""
        found: Counter[str] = Counter()
        async for gap in self._gaps.find_inconsistencies(mend=True):
            found[gap.problem] += 1
            logger.error("gap: job %s: %s", gap.job_id, gap.problem)
        if found:
            logger.error("gaps mended: %s", ", ".join(f"{n} {what}" for what, n in found.items()))
