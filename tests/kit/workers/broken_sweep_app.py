"""The real workers, whose sweep fails while a file `sweep-fails` is in the data folder."""

from __future__ import annotations

from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.ledger.records import SweepCounts
from afterword.workers.app import app

__all__ = ["app"]

_SWITCH = settings_in_use().data_dir / "sweep-fails"
_sweep = Maintenance.sweep


async def _fail_if_told(maintenance: Maintenance) -> SweepCounts:
    if _SWITCH.exists():
        raise KeyError("canary: what a bug may say is never logged")
    return await _sweep(maintenance)


setattr(Maintenance, "sweep", _fail_if_told)  # noqa: B010 to mypy a method is no attribute
