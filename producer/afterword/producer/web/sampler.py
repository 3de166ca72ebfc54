"""Takes a sample of the fleet each minute, and looks at it for `/metrics`, while a console runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from afterword.producer.admin.fleet_metrics import FleetState, state_of
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.samples import Sample
from afterword.shared.lifecycle import JobState, TurnState

#: How often it is asked whether a sample is due, in seconds.
_EVERY_S = 5.0

_REMEMBERED = (TurnState.STORED, TurnState.NOTHING, TurnState.SKIPPED)


class Sampler(AsyncCloseable):
    """Looks at the fleet. Of several consoles, one takes the sample of each minute."""

    def __init__(self, checked: CheckedLedger, late_s: float) -> None:
        self._checked = checked
        self._late_s = late_s
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Take samples from now on."""
        self._task = asyncio.create_task(self._keep_sampling())

    async def look(self) -> FleetState:
        """Return what the ledger says of the fleet."""
        return await state_of(await self._checked.for_reading(), self._late_s)

    async def sample_if_due(self) -> bool:
        """Take the sample of this minute, unless somebody has; return whether it was taken."""
        ledger = await self._checked.for_reading()
        if not await ledger.samples.is_due():
            return False
        await self._sample(ledger)
        return True

    async def _sample(self, ledger: Ledger) -> None:
        found = await self.look()
        jobs, turns = found.status["jobs"], found.status["turns"]
        sample = Sample(
            replied=jobs[JobState.SUCCEEDED],
            remembered=sum(turns[state] for state in _REMEMBERED),
            queued=jobs[JobState.QUEUED],
            turns_waiting=turns[TurnState.PENDING],
            oldest_ready_s=found.status["queues"]["replies"]["oldest_ready_s"],
            users_behind=found.account.users_behind,
            users_late=found.account.users_late,
            dead_letters=sum(found.status["dead_letters"].values()),
        )
        await ledger.samples.add(sample)

    async def _keep_sampling(self) -> None:
        while True:
            with suppress(AfterwordError):  # the pages say what is wrong with Redis
                await self.sample_if_due()
            await asyncio.sleep(_EVERY_S)

    async def aclose(self) -> None:
        """Take no more samples."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
