"""The gates: which calls pass, which is the canary, when a gate shuts and how it opens again."""

from __future__ import annotations

import asyncio
import itertools
import math
from typing import Any

import pytest

from afterword.producer import AsyncOperator
from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import CallOutcome, CallReport, GateDecision, GateState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

GATE = "claude/some model: {odd}"
FAILURES = 5
CANARY_S = 60.0
_tokens = (f"t{number}" for number in itertools.count())


class Desk:
    """The gates of a fleet; each call has a token of its own."""

    def __init__(self, gates: Gates, inspector: LedgerInspector) -> None:
        self.gates = gates
        self._inspector = inspector
        self._key = inspector.keys.gate(GATE)

    async def ask(self, token: str | None = None) -> GateDecision:
        return await self.gates.request(GATE, token or next(_tokens), canary_s=CANARY_S)

    async def tell(
        self,
        outcome: CallOutcome,
        token: str | None = None,
        *,
        pause_s: float = 0.0,
        worked: bool = False,
        age_s: float = 60.0,
    ) -> GateDecision:
        report = CallReport(outcome, "overloaded", pause_s=pause_s, worked=worked, age_s=age_s)
        return await self.gates.report_outcome(GATE, token or next(_tokens), report)

    async def fail(self, times: int = FAILURES) -> GateDecision:
        return [await self.tell(CallOutcome.FAILED) for _ in range(times)][-1]

    async def deny(self, code: str = "key_refused", token: str | None = None) -> GateDecision:
        report = CallReport(CallOutcome.SHUT, code, Fault.OPERATOR, 60)
        return await self.gates.report_outcome(GATE, token or next(_tokens), report)

    async def canary(self) -> str:
        """Let the pause end and return the token of the canary."""
        self.end_pause()
        token = next(_tokens)
        assert (await self.ask(token)).canary
        return token

    async def reopen(self) -> None:
        await self.tell(CallOutcome.WORKED, await self.canary())

    def end_pause(self) -> None:
        """Let the pause end; the canary remains the canary."""
        self._inspector.redis.hset(self._key, "until", 0)

    def set_back(self, field: str, seconds: float) -> None:
        """Let time pass for one of the times in a gate's record."""
        self._inspector.redis.hincrby(self._key, field, -round(seconds * 1000))

    def ago_s(self, field: str) -> float:
        """Return how many seconds ago one of the times in a gate's record was."""
        now_s, microseconds = self._inspector.redis.time()
        moment_ms = float(self._inspector.redis.hget(self._key, field))
        return float(now_s + microseconds / 1e6) - moment_ms / 1000

    def place_s(self) -> float:
        """Return how many seconds after the gate may open the next call is told to come back."""
        until_ms, next_ms = self._inspector.redis.hmget(self._key, "until", "next")
        return (float(next_ms) - float(until_ms)) / 1000

    def pause_s(self) -> float:
        """Return for how long the gate is shut from now on."""
        return -self.ago_s("until")


@pytest.fixture
def desk(ledger: Ledger, inspector: LedgerInspector) -> Desk:
    return Desk(ledger.gates, inspector)


# -- shutting


async def test_a_gate_without_reports_is_open(desk: Desk) -> None:
    assert await desk.ask() == GateDecision(GateState.OPEN)
    assert await desk.gates.not_open() == []


async def test_a_few_failures_raise_doubts_and_enough_shut_it(desk: Desk) -> None:
    assert (await desk.fail(FAILURES - 1)).state is GateState.DOUBTED
    assert (await desk.ask()).state is GateState.OPEN

    shut = await desk.fail(1)
    assert (shut.state, shut.code, shut.news) == (GateState.SHUT, "overloaded", True)
    refused = await desk.ask()
    assert (refused.state, refused.canary, refused.code) == (GateState.SHUT, False, "overloaded")
    assert 0 < shut.retry_after_s <= 1.0 < refused.retry_after_s <= 2.01


async def test_a_success_anywhere_begins_the_count_anew(desk: Desk) -> None:
    for _ in range(3):
        await desk.fail(FAILURES - 1)
        assert (await desk.tell(CallOutcome.WORKED)).state is GateState.OPEN
    await desk.fail(FAILURES - 1)
    await desk.tell(CallOutcome.FAILED, worked=True)

    assert (await desk.ask()).state is GateState.OPEN
    await desk.fail(FAILURES - 1)
    assert (await desk.ask()).state is GateState.SHUT


async def test_a_failure_reported_twice_counts_once(desk: Desk) -> None:
    for _ in range(FAILURES * 2):
        await desk.tell(CallOutcome.FAILED, "the same")

    assert (await desk.ask()).state is GateState.OPEN


async def test_a_pause_that_the_provider_asks_for_begins_at_once(desk: Desk) -> None:
    shut = await desk.tell(CallOutcome.SHUT, pause_s=30)

    assert shut.retry_after_s == pytest.approx(30, abs=10)
    assert desk.pause_s() == pytest.approx(30, abs=10)


@pytest.mark.finding(32)
async def test_one_answer_imposes_no_more_than_the_cap_until_a_later_one_confirms_it(
    desk: Desk,
) -> None:
    for _ in range(3):
        await desk.tell(CallOutcome.SHUT, pause_s=900)
        assert desk.pause_s() == pytest.approx(60, abs=10)

    shut = await desk.tell(CallOutcome.SHUT, await desk.canary(), pause_s=900)
    assert desk.pause_s() == pytest.approx(900, abs=10)
    assert shut.retry_after_s < 65, "who waits looks again each minute: it may be opened by hand"


@pytest.mark.finding(32)
async def test_a_canary_that_is_the_first_to_ask_for_a_long_pause_confirms_nothing(
    desk: Desk,
) -> None:
    await desk.fail()
    await desk.tell(CallOutcome.SHUT, await desk.canary(), pause_s=900)

    assert desk.pause_s() == pytest.approx(60, abs=10)


@pytest.mark.finding(32)
async def test_an_answer_after_a_success_is_the_first_one_again(desk: Desk) -> None:
    await desk.tell(CallOutcome.SHUT, pause_s=900)
    await desk.reopen()
    await desk.tell(CallOutcome.SHUT, pause_s=900)

    assert desk.pause_s() == pytest.approx(60, abs=10)


async def test_a_late_report_can_extend_a_pause_but_not_double_it(desk: Desk) -> None:
    await desk.fail()
    await desk.fail(50)
    await desk.tell(CallOutcome.SHUT)
    assert desk.pause_s() <= 1.0

    late = await desk.tell(CallOutcome.SHUT, pause_s=30)
    assert not late.news
    await desk.tell(CallOutcome.SHUT, pause_s=10)
    assert desk.pause_s() == pytest.approx(30, abs=10)


async def test_an_operators_fault_is_reported_even_while_the_gate_is_shut(desk: Desk) -> None:
    await desk.fail()

    assert (await desk.deny()).news
    assert not (await desk.deny()).news
    assert [(gate.code, gate.fault) for gate in await desk.gates.not_open()] == [
        ("key_refused", Fault.OPERATOR)
    ]
    assert not (await desk.deny(token=await desk.canary())).news


async def test_gates_are_independent(desk: Desk) -> None:
    await desk.fail()

    assert (await desk.gates.request("recall", "t", canary_s=1)).state is GateState.OPEN


# -- the canary


async def test_one_canary_passes_in_the_whole_fleet(desk: Desk) -> None:
    await desk.fail()
    assert not (await desk.ask()).canary, "the pause is not over"
    desk.end_pause()

    stands = await asyncio.gather(*(desk.ask() for _ in range(100)))

    assert sum(stand.canary for stand in stands) == 1
    assert len({stand.retry_after_s for stand in stands if not stand.canary}) > 50


async def test_a_canary_that_asks_twice_is_the_same_one(desk: Desk) -> None:
    await desk.fail()
    token = await desk.canary()

    assert (await desk.ask(token)).canary
    assert not (await desk.ask()).canary


async def test_pauses_double_up_to_a_minute(desk: Desk) -> None:
    await desk.fail()
    pauses = []
    for _ in range(9):
        pauses.append(round(desk.pause_s()))
        shut = await desk.tell(CallOutcome.FAILED, await desk.canary())
        assert (shut.state, shut.news) == (GateState.SHUT, False)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


async def test_the_next_one_is_the_canary_once_the_first_was_lost(desk: Desk) -> None:
    await desk.fail()
    await desk.canary()
    assert not (await desk.ask()).canary

    desk.set_back("lease", CANARY_S - 1)
    assert not (await desk.ask()).canary
    desk.set_back("lease", 1)
    assert (await desk.ask()).canary


async def test_a_lost_canary_that_comes_back_decides_nothing(desk: Desk) -> None:
    await desk.fail()
    lost = await desk.canary()
    desk.set_back("lease", CANARY_S)
    await desk.canary()

    assert (await desk.tell(CallOutcome.WORKED, lost)).state is GateState.SHUT
    assert not (await desk.ask()).canary


async def test_a_canary_that_gives_up_makes_way_for_another(desk: Desk) -> None:
    await desk.fail()
    token = await desk.canary()
    await desk.tell(CallOutcome.LEFT)
    assert not (await desk.ask()).canary, "someone else left"

    await desk.tell(CallOutcome.LEFT, token)
    assert (await desk.ask()).canary


async def test_a_call_that_began_before_the_gate_shut_does_not_open_it(desk: Desk) -> None:
    await desk.fail()

    assert (await desk.tell(CallOutcome.WORKED)).state is GateState.SHUT


@pytest.mark.finding(23)
@pytest.mark.parametrize(("age_s", "state"), [(5.0, GateState.SHUT), (3.0, GateState.OPENING)])
async def test_a_call_that_began_after_the_gate_shut_and_worked_opens_it(
    desk: Desk, age_s: float, state: GateState
) -> None:
    await desk.fail()
    desk.set_back("shut", 5.5)

    assert (await desk.tell(CallOutcome.WORKED, age_s=age_s)).state is state


# -- opening


def permits(age_s: float) -> float:
    """Return how many may have passed a gate that began to open so long ago: 2^t a second."""
    return 1 + (2**age_s - 1) / math.log(2)


async def test_a_gate_opens_slowly(desk: Desk) -> None:
    await desk.fail()
    await desk.reopen()
    passed = 0
    for _ in range(8):
        before_s = desk.ago_s("opened")
        stands = await asyncio.gather(*(desk.ask() for _ in range(400)))
        passed += sum(stand.state is GateState.OPENING for stand in stands)
        assert permits(before_s) <= passed + 1
        assert passed <= permits(desk.ago_s("opened")) + 1
        desk.set_back("opened", 1)

    desk.set_back("opened", 2)
    assert {(await desk.ask()).state for _ in range(400)} == {GateState.OPEN}
    assert await desk.gates.not_open() == []


async def test_an_open_gate_leaves_no_record(desk: Desk, inspector: LedgerInspector) -> None:
    for _ in range(3):
        await desk.fail()
        await desk.tell(CallOutcome.FAILED, await desk.canary())
    await desk.reopen()
    desk.set_back("opened", 10)
    assert (await desk.fail(1)).state is GateState.DOUBTED
    await desk.tell(CallOutcome.WORKED)

    assert list(inspector.redis.scan_iter(f"{inspector.keys.root}:gate*")) == []
    await desk.fail()
    assert desk.pause_s() <= 1.0


async def test_failures_while_it_opens_shut_it_for_longer(desk: Desk) -> None:
    await desk.fail()
    await desk.reopen()
    assert (await desk.fail(FAILURES - 1)).state is GateState.OPENING

    assert not (await desk.fail(1)).news
    assert desk.pause_s() == pytest.approx(2, abs=0.2)


async def test_the_longer_a_gate_has_been_opening_the_shorter_it_is_shut_again(desk: Desk) -> None:
    """Else a moment of failures after a long outage would be another minute without calls."""
    await desk.fail()
    for _ in range(6):
        await desk.tell(CallOutcome.FAILED, await desk.canary())
    assert desk.pause_s() > 32
    await desk.reopen()
    desk.set_back("opened", 4)
    await desk.fail()

    assert desk.pause_s() <= 60 * 2 / 2**4


async def test_a_hundred_thousand_jobs_do_not_come_back_at_one_time(desk: Desk) -> None:
    """The return times rise one after another: 1, 2, 4 ... up to 256 in a second."""
    await desk.tell(CallOutcome.SHUT, pause_s=60)
    places = []
    for _ in range(2000):
        assert (await desk.ask()).retry_after_s > 0
        places.append(desk.place_s())

    assert places == sorted(places)
    seconds = [sum(1 for place in places if at <= place < at + 1) for at in range(12)]
    assert seconds[1] <= 3
    assert all(count <= 257 for count in seconds)
    assert max(places) > 10


async def test_a_job_that_meets_a_gate_shut_again_gets_the_last_return_time(desk: Desk) -> None:
    await desk.fail()
    last = [(await desk.ask()).retry_after_s for _ in range(1000)][-1]
    await desk.tell(CallOutcome.FAILED, await desk.canary())

    assert (await desk.ask()).retry_after_s > last - 1


async def test_the_time_to_retry_after_is_never_zero(desk: Desk) -> None:
    await desk.fail()
    await desk.reopen()
    times = [stand.retry_after_s for stand in [await desk.ask() for _ in range(50)] if stand.code]

    assert min(times) > 0.2


# -- what others see


async def test_a_shutting_and_a_doubt_are_announced(desk: Desk, ledger: Ledger) -> None:
    heard: list[str] = []
    async with ledger.listen_to_gates(heard.append):
        await desk.fail()
        await desk.tell(CallOutcome.FAILED, await desk.canary())
        await desk.reopen()
        await desk.fail()
        await until(lambda: len(heard) == 4, "all news are heard")

    assert heard == [f"doubted {GATE}", f"shut {GATE}"] * 2


async def test_a_gate_says_why_it_is_shut_and_since_when(desk: Desk) -> None:
    await desk.fail()
    [first] = await desk.gates.not_open()
    await desk.tell(CallOutcome.FAILED, await desk.canary())
    [second] = await desk.gates.not_open()
    await desk.reopen()
    [third] = await desk.gates.not_open()

    assert (first.name, first.state, first.code) == (GATE, GateState.SHUT, "overloaded")
    assert first.fault is Fault.PROVIDER
    assert first.until and second.until and third.until  # noqa: PT018 for the type checker
    assert first.since == second.since == third.since < first.until < second.until
    assert (first.untested_s, third.untested_s) == (0, 0)
    assert third.state is GateState.OPENING
    assert (third.until - third.since).total_seconds() == pytest.approx(10, abs=1)


@pytest.mark.finding(23)
async def test_a_gate_says_for_how_long_nobody_has_tested_it(desk: Desk) -> None:
    await desk.fail()
    desk.set_back("until", 61)
    [gate] = await desk.gates.not_open()
    assert gate.untested_s == pytest.approx(60, abs=1)

    assert (await desk.ask()).canary
    [gate] = await desk.gates.not_open()
    assert gate.untested_s == 0


# -- by hand


@pytest.mark.finding(32)
async def test_a_gate_shut_by_hand_stays_shut_whatever_the_calls_say(
    desk: Desk, ledger: Ledger
) -> None:
    heard: list[str] = []
    async with ledger.listen_to_gates(heard.append):
        await desk.gates.shut(GATE, by="ann", reason="they migrate", for_s=3600)
        await until(lambda: heard == [f"shut {GATE}"], "all processes hear of it")
    before = desk.pause_s()
    desk.set_back("shut", 5)
    for outcome in CallOutcome:
        told = await desk.tell(outcome, pause_s=9000 if outcome is CallOutcome.SHUT else 0, age_s=0)
        assert (told.state, told.code) == (GateState.SHUT, "shut_by_hand")
    asked = await desk.ask()

    assert (asked.state, asked.canary) == (GateState.SHUT, False)
    assert asked.retry_after_s < 70
    assert desk.pause_s() == pytest.approx(before, abs=1)
    [gate] = await desk.gates.not_open()
    assert (gate.by, gate.reason, gate.fault) == ("ann", "they migrate", Fault.OPERATOR)


@pytest.mark.finding(32)
async def test_a_canary_under_way_does_not_open_what_is_shut_by_hand(desk: Desk) -> None:
    await desk.fail()
    token = await desk.canary()
    await desk.gates.shut(GATE, by="ann")

    assert (await desk.tell(CallOutcome.WORKED, token)).state is GateState.SHUT


@pytest.mark.finding(32)
async def test_after_its_time_a_canary_tests_it(desk: Desk) -> None:
    await desk.gates.shut(GATE, by="ann", for_s=60)
    token = await desk.canary()
    await desk.tell(CallOutcome.FAILED, token)
    [gate] = await desk.gates.not_open()
    assert (gate.by, gate.code) == ("", "overloaded")

    await desk.gates.shut(GATE, by="ann", for_s=60)
    await desk.reopen()
    assert [one.state for one in await desk.gates.not_open()] == [GateState.OPENING]


@pytest.mark.finding(32)
async def test_a_gate_shut_without_a_time_stays_shut_until_an_operator_opens_it(
    desk: Desk, inspector: LedgerInspector
) -> None:
    await desk.fail()
    await desk.gates.shut(GATE, by="ann")
    [gate] = await desk.gates.not_open()
    assert gate.until is None
    assert inspector.redis.ttl(inspector.keys.gate(GATE)) == -1, "it is not forgotten"

    assert await desk.gates.open(GATE, by="bob")
    assert not await desk.gates.open(GATE, by="bob")
    assert (await desk.ask()).state is GateState.OPENING
    await desk.fail()
    assert desk.pause_s() <= 2.1, "the next outage is an ordinary one"


@pytest.mark.finding(32)
async def test_opening_and_shutting_by_hand_is_audited(desk: Desk, ledger: Ledger) -> None:
    await desk.gates.open(GATE, by="bob")
    await desk.gates.shut(GATE, by="ann", reason="they migrate", for_s=60)
    await desk.gates.open(GATE, by="bob")

    audited = [
        (one.by, one.action, one.details) for one in await ledger.replay_runs.audit_entries(9)
    ]
    assert audited == [
        ("bob", "gate_open", {"gate": GATE}),
        ("ann", "gate_shut", {"gate": GATE, "reason": "they migrate", "for_s": 60}),
    ]


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("name", {"name": "claude"}),
        ("name", {"name": "claude/"}),
        ("name", {"name": "claude/m\x1b[2J"}),
        ("name", {"name": "claude/m\n"}),
        ("reason", {"reason": "x" * 201}),
        ("reason", {"reason": "two\nlines"}),
        ("for_s", {"for_s": 0.0}),
        ("for_s", {"for_s": math.inf}),
        ("for_s", {"for_s": math.nan}),
    ],
)
async def test_shutting_an_unknown_gate_or_for_a_bad_time_is_refused(
    desk: Desk, settings: Settings, field: str, told: dict[str, object]
) -> None:
    arguments: dict[str, Any] = {"name": "recall"} | told
    async with AsyncOperator(settings) as operator:
        with pytest.raises(InvalidRequest) as refused:
            await operator.shut_gate(**arguments)

    assert refused.value.field == field
    assert await desk.gates.not_open() == []
