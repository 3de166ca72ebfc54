"""A process at the gates: it asks nothing while they are open, and no trouble breaks a reply."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from functools import partial
from typing import cast

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    LedgerUnavailable,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import CallOutcome, CallReport, Gate, GateDecision, GateState
from afterword.shared.settings import Settings
from afterword.workers import gate
from afterword.workers.gate import (
    ANNOUNCE_S,
    BUDGET_USED_UP,
    LATE_S,
    LOOK_S,
    GateClient,
    GateShut,
    Permit,
)
from afterword.workers.rules.retry_policy import LONGEST_SNOOZE_S, OPERATOR_PAUSE_S
from tests.kit.fakes.gates import FakeGates
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.waiting import until

NAME = "claude/m"
DOWN = Unavailable("overloaded")


class Clock:
    """A clock that the test turns."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Harness:
    """One process before fake gates."""

    def __init__(self) -> None:
        self.gates = FakeGates()
        self.clock = Clock()
        self.house = GateClient(cast("Gates", self.gates), self.clock)

    async def ask(self, canary_s: float = 1.0) -> Permit:
        return await self.house.enter(NAME, canary_s=canary_s)

    async def look(self) -> Permit:
        return await self.house.try_enter(NAME, canary_s=1.0)

    async def canary(self, canary_s: float = 1.0) -> Permit:
        """Be the canary before a gate that was heard to be shut."""
        self.house.receive(f"shut {NAME}")
        self.gates.stand = GateDecision(GateState.SHUT, canary=True)
        return await self.ask(canary_s)

    @property
    def told(self) -> list[CallOutcome]:
        return [report.outcome for report in self.gates.told]


@pytest.fixture
def harness() -> Harness:
    return Harness()


# -- while it is open


async def test_an_open_gate_costs_no_command(harness: Harness) -> None:
    for _ in range(100):
        permit = await harness.ask()
        permit.report_success()
        permit.release()
        (await harness.look()).report_success()
    await harness.house.flush()

    assert (harness.gates.asked, harness.gates.told) == ([], [])


async def test_a_failure_tells_of_the_successes_before_it_once(harness: Harness) -> None:
    (await harness.ask()).report_success()
    for _ in range(2):
        await (await harness.ask()).report_failure(DOWN)

    assert [report.worked for report in harness.gates.told] == [True, False]


async def test_a_success_under_suspicion_is_reported_once(harness: Harness) -> None:
    harness.house.receive(f"doubted {NAME}")
    for _ in range(3):
        (await harness.ask()).report_success()
        await harness.house.flush()

    assert (harness.gates.asked, harness.told) == ([], [CallOutcome.WORKED])


# -- while it is shut


async def test_a_gate_that_was_heard_to_be_shut_is_asked(harness: Harness) -> None:
    harness.gates.stand = GateDecision(GateState.SHUT, retry_after_s=7.0, code="overloaded")
    await harness.ask()
    harness.house.receive(f"shut {NAME}")

    with pytest.raises(GateShut) as refused:
        await harness.ask()
    assert (refused.value.retry_after_s, refused.value.code) == (7.0, "overloaded")


async def test_a_doubt_does_not_open_what_is_shut(harness: Harness) -> None:
    harness.gates.stand = GateDecision(GateState.SHUT, retry_after_s=7.0)
    for message in (f"shut {NAME}", f"doubted {NAME}", ""):
        harness.house.receive(message)

    with pytest.raises(GateShut):
        await harness.ask()


async def test_once_it_is_open_again_nobody_asks_any_more(harness: Harness) -> None:
    harness.house.receive(f"shut {NAME}")
    for _ in range(10):
        await harness.ask()

    assert harness.gates.asked == [NAME]


async def test_while_it_opens_everyone_asks(harness: Harness) -> None:
    harness.house.receive(f"shut {NAME}")
    harness.gates.stand = GateDecision(GateState.OPENING)
    for _ in range(5):
        await harness.ask()
        await harness.look()

    assert len(harness.gates.asked) == 10


async def test_peeking_at_a_shut_gate_asks_at_most_once_a_second(harness: Harness) -> None:
    harness.house.receive(f"shut {NAME}")
    for second in range(3):
        harness.clock.now = second * LOOK_S
        harness.gates.stand = GateDecision(GateState.SHUT, retry_after_s=7.0, code=f"why_{second}")
        for _ in range(50):
            with pytest.raises(GateShut) as refused:
                await harness.look()
            assert refused.value.code == f"why_{second}", "also of those that do not ask"

    assert len(harness.gates.asked) == 3


# -- what was not announced

SHUT = GateDecision(GateState.SHUT, retry_after_s=7.0, code="overloaded")


def listed(state: GateState = GateState.SHUT) -> Gate:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    return Gate(NAME, state, "overloaded", Fault.PROVIDER, at, at)


@pytest.mark.finding(23)
async def test_a_process_that_starts_learns_what_is_shut(harness: Harness) -> None:
    harness.gates.stand, harness.gates.listed = SHUT, [listed()]
    await harness.house.refresh()

    with pytest.raises(GateShut):
        await harness.ask()


@pytest.mark.finding(23)
async def test_a_client_that_may_have_missed_messages_asks_again(harness: Harness) -> None:
    harness.gates.stand, harness.gates.listed = SHUT, [listed()]
    harness.house.receive("")
    await harness.house.flush()

    with pytest.raises(GateShut):
        await harness.ask()


async def test_a_redis_that_is_away_again_is_no_error_of_the_listener(harness: Harness) -> None:
    harness.gates.trouble = LedgerUnavailable("away")
    harness.house.receive("")
    await harness.house.flush()


async def test_a_gate_that_has_opened_is_not_asked_again(harness: Harness) -> None:
    harness.house.receive(f"shut {NAME}")
    harness.clock.now = 5.0
    await harness.house.refresh()
    await harness.ask()

    assert harness.gates.asked == []


async def test_news_that_come_during_the_look_are_not_lost(harness: Harness) -> None:
    harness.house.receive(f"shut {NAME}")
    harness.clock.now = 5.0
    look = asyncio.create_task(harness.house.refresh())
    harness.house.receive(f"shut {NAME}")
    await look
    await harness.ask()

    assert harness.gates.asked == [NAME]


@pytest.mark.finding(23)
async def test_a_success_tells_a_gate_that_is_shut_in_spite_of_it_once(harness: Harness) -> None:
    (await harness.ask()).report_success()
    harness.gates.listed = [listed()]
    harness.clock.now = 4.0
    await harness.house.refresh()
    await harness.house.refresh()

    assert [(one.outcome, one.age_s) for one in harness.gates.told] == [(CallOutcome.WORKED, 4.0)]


# -- what is late


@pytest.mark.finding(33)
async def test_while_recall_is_late_writes_go_one_after_another(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("asyncio.sleep", pause)
    await harness.house.yield_to_recall()
    assert pauses == []

    harness.house.receive("late recall")
    for _ in range(3):
        await harness.house.yield_to_recall()
    harness.clock.now = LATE_S
    await harness.house.yield_to_recall()
    assert pauses == [LATE_S] * 3


async def test_that_recall_is_late_is_told_twice_a_second_at_most(harness: Harness) -> None:
    for _ in range(10):
        harness.house.announce_late("recall")
    harness.clock.now = ANNOUNCE_S
    harness.house.announce_late("recall")
    await harness.house.flush()
    assert harness.gates.late == ["recall"] * 2

    harness.gates.trouble = LedgerUnavailable("away")
    harness.clock.now = 2 * ANNOUNCE_S
    harness.house.announce_late("recall")
    await harness.house.flush()


# -- what is told


@pytest.mark.parametrize(
    ("error", "outcome", "pause_s"),
    [
        (DOWN, CallOutcome.FAILED, 0.0),
        (Unavailable("overloaded", retry_after_s=5), CallOutcome.FAILED, 5.0),
        (RateLimited("rate_limited"), CallOutcome.SHUT, 0.0),
        (RateLimited("rate_limited", retry_after_s=5), CallOutcome.SHUT, 5.0),
        (RateLimited("rate_limited", retry_after_s=1e9), CallOutcome.SHUT, LONGEST_SNOOZE_S),
        (AccessDenied("key_refused"), CallOutcome.SHUT, OPERATOR_PAUSE_S),
    ],
)
async def test_a_failure_is_told_as_what_it_is(
    harness: Harness, error: ProviderError, outcome: CallOutcome, pause_s: float
) -> None:
    await (await harness.ask()).report_failure(error)

    expected = CallReport(outcome, error.code, error.fault, pause_s)
    assert harness.gates.told == [expected]


@pytest.mark.parametrize("error", [BadAnswer("truncated"), Rejected("too_large")])
async def test_a_fault_of_the_request_is_not_reported_to_the_gate(
    harness: Harness, error: ProviderError
) -> None:
    assert await (await harness.ask()).report_failure(error) is None
    assert harness.gates.told == []


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (BadAnswer("truncated"), CallOutcome.FAILED),
        (Rejected("too_large"), CallOutcome.WORKED),
        (DOWN, CallOutcome.FAILED),
    ],
)
async def test_a_canary_says_how_it_went(
    harness: Harness, error: ProviderError, outcome: CallOutcome
) -> None:
    permit = await harness.canary()
    await permit.report_failure(error)
    permit.release()
    await harness.house.flush()

    assert harness.told == [outcome]


async def test_a_canary_keeps_its_gate_until_it_reports(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEASE_S", 0.03)
    permit = await harness.canary(canary_s=60.0)
    await until(lambda: len(harness.gates.asked) > 3, "it goes on saying that it is there")
    permit.report_success()
    await harness.house.flush()

    assert set(harness.gates.leases) == {0.03}
    assert len(asyncio.all_tasks()) == 1, "nothing goes on"


async def test_a_canary_keeps_its_gate_no_longer_than_it_may_take(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LEASE_S", 0.03)
    permit = await harness.canary(canary_s=0.1)
    await until(lambda: len(asyncio.all_tasks()) == 1, "it is taken for lost")
    permit.release()
    await harness.house.flush()


async def test_a_canary_reports_once(harness: Harness) -> None:
    permit = await harness.canary()
    for _ in range(3):
        permit.report_success()
    permit.release()
    await harness.house.flush()

    assert harness.told == [CallOutcome.WORKED]


async def test_a_canary_that_comes_to_nothing_makes_way(harness: Harness) -> None:
    permit = await harness.canary()
    permit.release()
    permit.release()
    await harness.house.flush()

    assert harness.told == [CallOutcome.LEFT]


async def test_a_budget_that_is_used_up_shuts_without_a_failure(harness: Harness) -> None:
    (await harness.ask()).report_success(12.0)
    await harness.house.flush()

    [report] = harness.gates.told
    assert (report.outcome, report.code, report.pause_s) == (CallOutcome.SHUT, BUDGET_USED_UP, 12.0)


@pytest.mark.parametrize(
    ("error", "level"), [(AccessDenied("key_refused"), logging.ERROR), (DOWN, logging.WARNING)]
)
async def test_a_shutting_is_said_once_and_what_is_ours_aloud(
    harness: Harness, caplog: pytest.LogCaptureFixture, error: ProviderError, level: int
) -> None:
    permit = await harness.ask()
    harness.gates.stand = GateDecision(
        GateState.SHUT, retry_after_s=1.0, code=error.code, news=True
    )
    harness.gates.fixed = True
    await permit.report_failure(error)
    harness.gates.stand = GateDecision(GateState.SHUT, retry_after_s=1.0, code=error.code)
    await permit.report_failure(error)

    assert [(record.levelno, error.code in record.message) for record in caplog.records] == [
        (level, True)
    ]


# -- trouble with Redis


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), RuntimeError("a bug")])
async def test_without_redis_every_gate_is_open(
    harness: Harness, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    harness.house.receive(f"shut {NAME}")
    harness.gates.trouble = error

    permit = await harness.ask()
    assert await permit.report_failure(DOWN) is None
    (await harness.look()).report_success(3.0)
    await harness.house.flush()
    assert "taken for open" in caplog.text


async def test_a_redis_that_hangs_is_waited_for_a_moment(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PATIENCE_S", 0.02)
    harness.house.receive(f"shut {NAME}")
    harness.gates.hangs = True
    async with asyncio.timeout(5):
        permit = await harness.ask()
        assert await permit.report_failure(DOWN) is None


# -- several processes


@pytest.mark.redis
async def test_a_gate_shut_by_one_process_is_shut_for_all(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    houses = [GateClient(ledger.gates) for _ in range(3)]
    async with (
        ledger.listen_to_gates(houses[0].receive),
        ledger.listen_to_gates(houses[1].receive),
        Ledger(settings, patience_s=5.0) as elsewhere,
        elsewhere.listen_to_gates(houses[2].receive),
    ):
        for _ in range(5):
            await (await houses[0].enter(NAME, canary_s=1)).report_failure(DOWN)
        for house in houses:
            await until(partial(house._views.get, NAME), "it has heard")
            with pytest.raises(GateShut):
                await house.enter(NAME, canary_s=1)


@pytest.mark.redis
async def test_a_success_elsewhere_keeps_a_gate_open(ledger: Ledger) -> None:
    unlucky, lucky = GateClient(ledger.gates), GateClient(ledger.gates)
    async with ledger.listen_to_gates(lucky.receive):
        for _ in range(4):
            for _ in range(3):
                await (await unlucky.enter(NAME, canary_s=1)).report_failure(DOWN)
            await until(lambda: NAME in lucky._views, "the doubt is heard")
            (await lucky.enter(NAME, canary_s=1)).report_success()
            await lucky.flush()

    assert await ledger.gates.not_open() == []
