"""The sweeper: it goes on, whatever one sweep came to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest

from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.ledger.maintenance import SWEEP_LIMIT, Maintenance
from afterword.shared.ledger.records import SweepCounts
from afterword.workers.background.sweeper import Sweeper
from tests.kit.waiting import until


class Sweeps:
    """Gives what the test says, then nothing; keeps who asked."""

    def __init__(self, results: Sequence[SweepCounts | Exception]) -> None:
        self._results = list(results)
        self.seen: list[str] = []

    async def sweep(self, seen: str = "") -> SweepCounts:
        self.seen.append(seen)
        result = self._results.pop(0) if self._results else SweepCounts()
        if isinstance(result, Exception):
            raise result
        return result


@asynccontextmanager
async def sweeping(
    *results: SweepCounts | Exception, every_s: float = 0.001
) -> AsyncIterator[Sweeps]:
    upkeep = Sweeps(results)
    sweeper = Sweeper(cast("Maintenance", upkeep), every_s=every_s, seen=lambda: "replies w")
    task = asyncio.create_task(sweeper.sweep_for_ever())
    try:
        yield upkeep
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_it_sweeps_again_and_again_as_the_worker_it_is() -> None:
    async with sweeping() as upkeep:
        await until(lambda: len(upkeep.seen) > 3, "it sweeps")

    assert set(upkeep.seen) == {"replies w"}


async def test_it_does_not_wait_while_more_is_due_than_a_sweep_may_do() -> None:
    full = SweepCounts(woken=SWEEP_LIMIT)
    async with sweeping(full, full, SweepCounts(woken=SWEEP_LIMIT - 1), every_s=3600) as upkeep:
        await until(lambda: len(upkeep.seen) == 3, "all that is due is done")


@pytest.mark.parametrize(
    "error", [LedgerUnavailable("away"), Misconfigured("AFTERWORD_REDIS_URL", "refused")]
)
async def test_a_ledger_that_is_away_stops_it_only_for_now(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with sweeping(error, error) as upkeep:
        await until(lambda: len(upkeep.seen) > 3, "it goes on")

    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2


async def test_it_tells_what_was_lost_and_is_silent_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    found = SweepCounts(expired=1, woken=2, taken_back=3, hinted_again=4)
    async with sweeping(SweepCounts(), found, SweepCounts(woken=5)) as upkeep:
        await until(lambda: len(upkeep.seen) > 4, "it sweeps")

    assert [record.message for record in caplog.records] == [
        "swept: 1 expired, 3 taken back, 4 hinted again"
    ]
