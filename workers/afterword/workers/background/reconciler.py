"""The reconciler: finds jobs and turns that are not where their state says, and fixes them."""

from __future__ import annotations

from afterword.shared.events import InconsistencyFixed, ReconciliationFinished
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.observer import bound, emit


class Reconciler:
    """Runs in every worker; one search of the whole fleet in `interval_s` seconds is enough."""

    def __init__(self, maintenance: Maintenance, interval_s: float) -> None:
        self._maintenance = maintenance
        self._interval_s = interval_s

    async def reconcile_if_due(self) -> None:
        """Search all records, unless a worker of the fleet did so within the interval."""
        if await self._maintenance.claim_reconciliation(round(self._interval_s * 1000)):
            await self.reconcile()

    async def reconcile(self) -> None:
        """Search all records, and report and fix each that is inconsistent."""
        fixed = 0
        async for found in self._maintenance.find_inconsistencies(fix=True):
            fixed += 1
            with bound(job_id=found.job_id):
                emit(InconsistencyFixed, kind=found.problem)
        emit(ReconciliationFinished, fixed=fixed)
