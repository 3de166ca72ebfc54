"""The sweep: once in a while every worker looks for what was lost or has become due."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from afterword.shared.errors import AfterwordError
from afterword.shared.events import PeriodicTaskFailed, SweepFinished
from afterword.shared.ledger.maintenance import SWEEP_LIMIT, Maintenance
from afterword.shared.ledger.records import SweepCounts
from afterword.shared.observer import emit


class Sweeper:
    """Sweeps for ever; nobody is special, so it may run in every worker at once."""

    def __init__(self, upkeep: Maintenance, *, every_s: float, seen: Callable[[], str]) -> None:
        """Take how often to sweep, and the '<queue> <worker>' to be seen as; '' is unseen."""
        self._upkeep = upkeep
        self._every_s = every_s
        self._seen = seen

    async def sweep_for_ever(self) -> None:
        """Sweep, at times spread out so that workers do not march in step."""
        while True:
            try:
                found = await self._upkeep.sweep(self._seen())
            except AfterwordError as error:
                emit(PeriodicTaskFailed, task="sweep", error=type(error).__name__, failures=1)
            else:
                emit(
                    SweepFinished,
                    expired=found.expired,
                    woken=found.woken,
                    taken_back=found.taken_back,
                    hinted_again=found.hinted_again,
                )
                if _more_is_due(found):
                    continue
            await asyncio.sleep(self._every_s * random.uniform(0.5, 1.5))  # noqa: S311 no secret


def _more_is_due(found: SweepCounts) -> bool:
    """Return whether a sweep found as much of one kind as it may: lanes that follow events do."""
    kinds = (found.woken, found.expired, found.taken_back, found.hinted_again)
    return max(kinds) >= SWEEP_LIMIT
