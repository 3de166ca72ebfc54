"""The reconciler: now and then one worker of the fleet looks for turns that fell through."""

from __future__ import annotations

import asyncio
import random

from afterword.shared.errors import AfterwordError
from afterword.shared.events import (
    InconsistencyFixed,
    PeriodicTaskFailed,
    ReconciliationFinished,
)
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.observer import bound, emit


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
                emit(PeriodicTaskFailed, task="reconcile", error=type(error).__name__, failures=1)

    async def reconcile(self) -> None:
        """Look once, at everything."""
        fixed = 0
        async for gap in self._gaps.find_inconsistencies(fix=True):
            fixed += 1
            with bound(job_id=gap.job_id):
                emit(InconsistencyFixed, kind=gap.problem)
        emit(ReconciliationFinished, fixed=fixed)
