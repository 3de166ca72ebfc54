"""The sweeper: it goes on while more is due, and reports what it put right."""

from __future__ import annotations

import pytest

from afterword.shared.events import SweepFinished
from afterword.shared.ledger.maintenance import SWEEP_LIMIT, Maintenance
from afterword.shared.ledger.records import SweepCounts
from afterword.workers.background.sweeper import sweep
from tests.kit.workers.observed import observed


class Sweeps(Maintenance):
    """A ledger whose sweep finds what the test says."""

    def __init__(self, found: SweepCounts) -> None:
        self._found = found

    async def balance_if_due(self) -> None:
        """Balance nothing."""

    async def sweep(self) -> SweepCounts:
        return self._found


@pytest.mark.parametrize(
    ("found", "more"),
    [
        (SweepCounts(), False),
        (SweepCounts(woken=SWEEP_LIMIT - 1), False),
        (SweepCounts(woken=SWEEP_LIMIT), True),
        (SweepCounts(expired=SWEEP_LIMIT), True),
        (SweepCounts(hinted_again=SWEEP_LIMIT + 1), True),
    ],
)
async def test_more_is_due_if_it_found_as_much_as_it_may(found: SweepCounts, more: bool) -> None:
    assert await sweep(Sweeps(found)) is more


async def test_it_reports_what_it_put_right() -> None:
    with observed(SweepFinished) as seen:
        await sweep(Sweeps(SweepCounts(expired=1, woken=2, taken_back=3, hinted_again=4)))

    assert seen.of(SweepFinished) == [
        SweepFinished(expired=1, woken=2, taken_back=3, hinted_again=4)
    ]
