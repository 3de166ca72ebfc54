"""The sweep: each worker puts right what was lost and starts what has become due."""

from __future__ import annotations

from afterword.shared.events import SweepFinished
from afterword.shared.ledger.maintenance import SWEEP_LIMIT, Maintenance
from afterword.shared.observer import emit


async def sweep(maintenance: Maintenance) -> bool:
    """Sweep all shards once; return whether more is due than one sweep may do.

    Any number of workers may sweep at the same time; one balances tenants between shards.
    """
    found = await maintenance.sweep()
    await maintenance.balance_if_due()
    emit(
        SweepFinished,
        expired=found.expired,
        woken=found.woken,
        taken_back=found.taken_back,
        hinted_again=found.hinted_again,
    )
    return found.expired + found.woken + found.taken_back + found.hinted_again >= SWEEP_LIMIT
