"""A process at the gates: it asks nothing while they are open, and no trouble breaks a reply."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import cast

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    LedgerUnavailable,
    RateLimited,
    Rejected,
    Unavailable,
    Upstream,
)
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState, Outcome, Report, Stand
from afterword.shared.settings import Settings
from afterword.workers import gate
from afterword.workers.gate import BUDGET, LOOK_S, Gatehouse, GateShut, Passage
from afterword.workers.rules.retry_policy import LONGEST_SNOOZE_S, OURS_PAUSE_S
from tests.fakes.gates import FakeGates
from tests.standins.book import Book
from tests.standins.waiting import until

NAME = "claude/m"
DOWN = Unavailable("overloaded")


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Door:
    """One process before fake gates."""

    def __init__(self) -> None:
        self.gates = FakeGates()
        self.clock = Clock()
        self.house = Gatehouse(cast("Gates", self.gates), self.clock)

    async def ask(self, canary_s: float = 1.0) -> Passage:
        return await self.house.ask(NAME, canary_s=canary_s)

    async def look(self) -> Passage:
        return await self.house.look(NAME, canary_s=1.0)

    async def canary(self, canary_s: float = 1.0) -> Passage:
        """Be the canary before a gate that was heard to be shut."""
        self.house.hear(f"shut {NAME}")
        self.gates.stand = Stand(GateState.SHUT, canary=True)
        return await self.ask(canary_s)

    @property
    def told(self) -> list[Outcome]:
        return [report.outcome for report in self.gates.told]


@pytest.fixture
def door() -> Door:
    return Door()


# -- while it is open


async def test_an_open_gate_costs_no_command(door: Door) -> None:
    for _ in range(100):
        passage = await door.ask()
        passage.worked()
        passage.left()
        (await door.look()).worked()
    await door.house.settle()

    assert (door.gates.asked, door.gates.told) == ([], [])


async def test_a_failure_tells_of_the_successes_before_it_once(door: Door) -> None:
    (await door.ask()).worked()
    for _ in range(2):
        await (await door.ask()).failed(DOWN)

    assert [report.worked for report in door.gates.told] == [True, False]


async def test_who_works_in_spite_of_a_doubt_says_so_once(door: Door) -> None:
    door.house.hear(f"doubted {NAME}")
    for _ in range(3):
        (await door.ask()).worked()
        await door.house.settle()

    assert (door.gates.asked, door.told) == ([], [Outcome.WORKED])


# -- while it is shut


async def test_a_gate_that_was_heard_to_be_shut_is_asked(door: Door) -> None:
    door.gates.stand = Stand(GateState.SHUT, comeback_s=7.0, code="overloaded")
    await door.ask()
    door.house.hear(f"shut {NAME}")

    with pytest.raises(GateShut) as refused:
        await door.ask()
    assert (refused.value.comeback_s, refused.value.code) == (7.0, "overloaded")


async def test_a_doubt_does_not_open_what_is_shut(door: Door) -> None:
    door.gates.stand = Stand(GateState.SHUT, comeback_s=7.0)
    for message in (f"shut {NAME}", f"doubted {NAME}", ""):
        door.house.hear(message)

    with pytest.raises(GateShut):
        await door.ask()


async def test_once_it_is_open_again_nobody_asks_any_more(door: Door) -> None:
    door.house.hear(f"shut {NAME}")
    for _ in range(10):
        await door.ask()

    assert door.gates.asked == [NAME]


async def test_while_it_opens_everyone_asks(door: Door) -> None:
    door.house.hear(f"shut {NAME}")
    door.gates.stand = Stand(GateState.OPENING)
    for _ in range(5):
        await door.ask()
        await door.look()

    assert len(door.gates.asked) == 10


async def test_whoever_only_looks_in_asks_once_a_second(door: Door) -> None:
    door.house.hear(f"shut {NAME}")
    door.gates.stand = Stand(GateState.SHUT, comeback_s=7.0)
    for second in range(3):
        door.clock.now = second * LOOK_S
        for _ in range(50):
            with pytest.raises(GateShut):
                await door.look()

    assert len(door.gates.asked) == 3


# -- what is told


@pytest.mark.parametrize(
    ("error", "outcome", "pause_s"),
    [
        (DOWN, Outcome.FAILED, 0.0),
        (Unavailable("overloaded", retry_after_s=5), Outcome.FAILED, 5.0),
        (RateLimited("rate_limited"), Outcome.SHUT, 0.0),
        (RateLimited("rate_limited", retry_after_s=5), Outcome.SHUT, 5.0),
        (RateLimited("rate_limited", retry_after_s=1e9), Outcome.SHUT, LONGEST_SNOOZE_S),
        (AccessDenied("key_refused"), Outcome.SHUT, OURS_PAUSE_S),
    ],
)
async def test_a_failure_is_told_as_what_it_is(
    door: Door, error: Upstream, outcome: Outcome, pause_s: float
) -> None:
    await (await door.ask()).failed(error)

    expected = Report(outcome, error.code, error.blame, pause_s)
    assert door.gates.told == [expected]


@pytest.mark.parametrize("error", [BadAnswer("truncated"), Rejected("too_large")])
async def test_what_is_this_ones_says_nothing_of_the_provider(door: Door, error: Upstream) -> None:
    assert await (await door.ask()).failed(error) is None
    assert door.gates.told == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BadAnswer("truncated"), Outcome.FAILED),
        (Rejected("too_large"), Outcome.WORKED),
        (DOWN, Outcome.FAILED),
    ],
)
async def test_a_canary_says_how_it_went(door: Door, error: Upstream, outcome: Outcome) -> None:
    passage = await door.canary()
    await passage.failed(error)
    passage.left()
    await door.house.settle()

    assert door.told == [outcome]


async def test_a_canary_keeps_its_gate_until_it_has_sung(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEASE_S", 0.03)
    passage = await door.canary(canary_s=60.0)
    await until(lambda: len(door.gates.asked) > 3, "it goes on saying that it is there")
    passage.worked()
    await door.house.settle()

    assert set(door.gates.leases) == {0.03}
    assert len(asyncio.all_tasks()) == 1, "nothing goes on"


async def test_a_canary_keeps_its_gate_no_longer_than_it_may_take(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEASE_S", 0.03)
    passage = await door.canary(canary_s=0.1)
    await until(lambda: len(asyncio.all_tasks()) == 1, "it is taken for lost")
    passage.left()
    await door.house.settle()


async def test_a_canary_sings_once(door: Door) -> None:
    passage = await door.canary()
    for _ in range(3):
        passage.worked()
    passage.left()
    await door.house.settle()

    assert door.told == [Outcome.WORKED]


async def test_a_canary_that_comes_to_nothing_makes_way(door: Door) -> None:
    passage = await door.canary()
    passage.left()
    passage.left()
    await door.house.settle()

    assert door.told == [Outcome.LEFT]


async def test_a_budget_that_is_used_up_shuts_without_a_failure(door: Door) -> None:
    (await door.ask()).worked(12.0)
    await door.house.settle()

    [report] = door.gates.told
    assert (report.outcome, report.code, report.pause_s) == (Outcome.SHUT, BUDGET, 12.0)


@pytest.mark.parametrize(
    ("error", "level"), [(AccessDenied("key_refused"), logging.ERROR), (DOWN, logging.WARNING)]
)
async def test_a_shutting_is_said_once_and_what_is_ours_aloud(
    door: Door, caplog: pytest.LogCaptureFixture, error: Upstream, level: int
) -> None:
    passage = await door.ask()
    door.gates.stand = Stand(GateState.SHUT, comeback_s=1.0, code=error.code, news=True)
    door.gates.fixed = True
    await passage.failed(error)
    door.gates.stand = Stand(GateState.SHUT, comeback_s=1.0, code=error.code)
    await passage.failed(error)

    assert [(record.levelno, error.code in record.message) for record in caplog.records] == [
        (level, True)
    ]


# -- trouble with Redis


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), RuntimeError("a bug")])
async def test_without_redis_every_gate_is_open(
    door: Door, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    door.house.hear(f"shut {NAME}")
    door.gates.trouble = error

    passage = await door.ask()
    assert await passage.failed(DOWN) is None
    (await door.look()).worked(3.0)
    await door.house.settle()
    assert "no word" in caplog.text


async def test_a_redis_that_hangs_is_waited_for_a_moment(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.02)
    door.house.hear(f"shut {NAME}")
    door.gates.hangs = True
    async with asyncio.timeout(5):
        passage = await door.ask()
        assert await passage.failed(DOWN) is None


# -- several processes


@pytest.mark.redis
async def test_what_one_process_finds_out_all_know_at_once(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    houses = [Gatehouse(ledger.gates) for _ in range(3)]
    async with (
        ledger.hearing_gates(houses[0].hear),
        ledger.hearing_gates(houses[1].hear),
        Ledger(settings, patience_s=5.0) as elsewhere,
        elsewhere.hearing_gates(houses[2].hear),
    ):
        for _ in range(5):
            await (await houses[0].ask(NAME, canary_s=1)).failed(DOWN)
        for house in houses:
            await until(partial(house._views.get, NAME), "it has heard")
            with pytest.raises(GateShut):
                await house.ask(NAME, canary_s=1)


@pytest.mark.redis
async def test_a_success_elsewhere_keeps_a_gate_open(ledger: Ledger) -> None:
    unlucky, lucky = Gatehouse(ledger.gates), Gatehouse(ledger.gates)
    async with ledger.hearing_gates(lucky.hear):
        for _ in range(4):
            for _ in range(3):
                await (await unlucky.ask(NAME, canary_s=1)).failed(DOWN)
            await until(lambda: NAME in lucky._views, "the doubt is heard")
            (await lucky.ask(NAME, canary_s=1)).worked()
            await lucky.settle()

    assert await ledger.gates.all() == []
