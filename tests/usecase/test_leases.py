"""Leases: renewed together, and whoever loses one is stopped at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from afterword.shared.errors import LeaseLost, LedgerUnavailable, Misconfigured
from afterword.workers.background.periodic import STEADY, PeriodicTask, PeriodicTasks
from afterword.workers.leases import RENEWALS, Leases
from tests.kit.waiting import until

LEASE_S = 0.03


class Ledger:
    """Renews what the test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.lost: list[str] = []
        self.error: Exception | None = None
        self.hangs = False

    async def renew(self, held: Sequence[tuple[str, str]]) -> list[str]:
        self.asked.append(list(held))
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        return self.lost


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def leases(ledger: Ledger) -> Leases:
    return Leases(ledger.renew, LEASE_S)


@asynccontextmanager
async def kept(leases: Leases) -> AsyncIterator[None]:
    renewal = PeriodicTask("lease_renewal", leases.renew_all, LEASE_S / RENEWALS, STEADY)
    async with PeriodicTasks([renewal]).running():
        yield


async def work(leases: Leases, name: str = "j1") -> str:
    try:
        async with leases.holding(name, f"fence-{name}"):
            await asyncio.Event().wait()
    except LeaseLost:
        return "lost"
    return "done"


async def test_all_that_is_held_is_renewed_in_one_call(leases: Leases, ledger: Ledger) -> None:
    async with kept(leases), leases.holding("j1", "1"), leases.holding("l1", "2"):
        await until(lambda: len(ledger.asked) >= 2, "they are renewed again and again")

    assert ledger.asked[0] == [("j1", "1"), ("l1", "2")]
    assert len(leases) == 0


async def test_without_leases_nothing_is_renewed(leases: Leases, ledger: Ledger) -> None:
    await leases.renew_all()

    assert ledger.asked == []


async def test_only_the_holder_of_a_lost_lease_is_stopped(leases: Leases, ledger: Ledger) -> None:
    one, two = [asyncio.create_task(work(leases, name)) for name in ("j1", "j2")]
    await until(lambda: len(leases) == 2, "both are held")
    ledger.lost = ["j1"]

    await leases.renew_all()

    assert await one == "lost"
    assert not two.done()
    two.cancel()
    await asyncio.gather(two, return_exceptions=True)


@pytest.mark.parametrize(
    "error",
    [LedgerUnavailable("away"), Misconfigured("AFTERWORD_REDIS_URL", "refused"), KeyError("bug")],
)
async def test_a_lease_that_cannot_be_renewed_is_given_up_and_renewal_goes_on(
    leases: Leases, ledger: Ledger, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.error = error
    async with kept(leases):
        task = asyncio.create_task(work(leases))
        assert await task == "lost"
        assert "not renewed" in caplog.text
        ledger.error = None
        async with leases.holding("j2", "2"):
            asked = len(ledger.asked)
            await until(lambda: len(ledger.asked) > asked, "the next one is renewed")


async def test_a_ledger_that_hangs_does_not_hold_a_lapsed_lease(
    leases: Leases, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.hangs = True
    caplog.set_level(logging.ERROR)
    async with kept(leases):
        assert await work(leases) == "lost"


async def test_being_stopped_by_someone_else_is_no_lost_lease(leases: Leases) -> None:
    task = asyncio.create_task(work(leases))
    await until(lambda: len(leases) == 1, "it is held")

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(leases) == 0


async def test_stopped_and_lost_at_once_is_stopped(leases: Leases) -> None:
    task = asyncio.create_task(work(leases))
    await until(lambda: len(leases) == 1, "it is held")

    leases.lose("j1")
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_losing_what_is_not_held_does_nothing(leases: Leases) -> None:
    leases.lose("nobody's")
    async with leases.holding("j1", "1"):
        assert not leases.lost_by("j1")
    assert leases.lost_by("j1")


@pytest.mark.parametrize("told", ["j1", "j1 fence-j1"])
async def test_news_of_an_earlier_attempt_do_not_end_a_later_one(leases: Leases, told: str) -> None:
    task = asyncio.create_task(work(leases, "j1"))
    await until(lambda: len(leases) == 1, "it is held")
    for news in ("j1 fence-0", "j2", "j2 fence-j1", None):
        leases.hear(news)
    assert not leases.lost_by("j1")

    leases.hear(told)

    assert await task == "lost"


async def test_a_lease_taken_again_outlives_the_end_of_the_first(leases: Leases) -> None:
    first = leases.holding("j1", "1")
    await first.__aenter__()
    async with leases.holding("j1", "2"):
        await first.__aexit__(None, None, None)
        assert not leases.lost_by("j1")


class Clock:
    """Stands still until a test lets time pass."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timed(ledger: Ledger, clock: Clock) -> Leases:
    return Leases(ledger.renew, 30.0, clock)


async def test_a_lease_is_sure_only_in_its_first_part(timed: Leases, clock: Clock) -> None:
    async with timed.holding("l1", "1"):
        clock.time = 20.0
        timed.require("l1")
        clock.time = 20.1
        with pytest.raises(LeaseLost):
            timed.require("l1")


async def test_a_lease_begins_when_it_was_asked_for(timed: Leases, clock: Clock) -> None:
    """The process may have been stopped between Redis's answer and its arrival here."""
    clock.time = 25.0
    async with timed.holding("l1", "1", asked_at=0.0):
        with pytest.raises(LeaseLost):
            timed.require("l1")


async def test_a_renewal_counts_from_when_it_was_asked_for(clock: Clock) -> None:
    async def renew(_: Sequence[tuple[str, str]]) -> list[str]:
        clock.time = 35.0
        return []

    leases = Leases(renew, 30.0, clock)
    async with leases.holding("l1", "1"):
        clock.time = 10.0
        await leases.renew_all()
        with pytest.raises(LeaseLost):
            leases.require("l1")
        clock.time = 30.0
        leases.require("l1")


async def test_a_lease_that_was_not_renewed_cannot_be_required(
    timed: Leases, ledger: Ledger, clock: Clock
) -> None:
    ledger.lost = ["l2"]
    holder = asyncio.create_task(work(timed, "l2"))
    await until(lambda: len(timed) == 1, "it is held")
    async with timed.holding("l1", "1"):
        clock.time = 10.0
        await timed.renew_all()
        clock.time = 25.0
        timed.require("l1")
        with pytest.raises(LeaseLost):
            timed.require("l2")
    assert await holder == "lost"


async def test_a_lease_that_is_not_held_cannot_be_required(timed: Leases) -> None:
    with pytest.raises(LeaseLost):
        timed.require("l1")
