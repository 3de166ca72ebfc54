"""Storing turns: once, in order, whatever fails, and never at the price of the lane."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.events import (
    InternalError,
    StoreAnswered,
    TurnBuried,
    TurnPostponed,
    TurnSettled,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import REMEMBER_GATE, lane_tag, memory_key
from afterword.shared.settings import Settings
from afterword.workers import gate
from afterword.workers.memories import lane
from afterword.workers.ports import (
    AddOutcome,
    AddResult,
    EventFailed,
    EventGone,
    RecalledMemory,
    Turn,
)
from afterword.workers.quotas import NotAdmitted
from afterword.workers.rules import retry_policy as policy
from afterword.workers.rules.retry_policy import FOLLOW_S, LONGEST_OUTAGE_PAUSE_S, OPERATOR_PAUSE_S
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_job,
)
from tests.kit.ledger.lane_writer import VERSION, FailingMemories, LaneWriter
from tests.kit.waiting import until
from tests.kit.workers.observed import observed

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
SECRET = "marmalade"
AT = datetime(2026, 5, 8, tzinfo=UTC)


@pytest.fixture
def memories() -> FailingMemories:
    return FailingMemories()


@pytest.fixture
def lane_writer(settings: Settings, ledger: Ledger, memories: FailingMemories) -> LaneWriter:
    return LaneWriter(settings, ledger, memories)


async def turn_of(ledger: Ledger, turn_id: str) -> TurnState:
    return (await ledger.queries.status(turn_id)).turn


@pytest.mark.finding(33)
async def test_a_turn_waits_while_recall_is_late(
    lane_writer: LaneWriter, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LATE_S", 1000.0)
    await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.gates.receive("late recall")
    work = asyncio.create_task(lane_writer.write())
    await until(lane_writer.gates._yielding.locked, "it yields")
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work

    assert lane_writer.calls == []


# -- the straight way


async def test_a_turn_is_stored_with_its_own_time_and_name(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.", conversation_id="c")

    await lane_writer.write()

    (row,) = lane_writer.memories.rows
    assert (row.owner, row.text, row.turn_id) == (ANN, "I prefer Celsius.", turn_id)
    assert row.created_at == (await ledger.queries.status(turn_id)).created_at
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert inspector.job(turn_id)["memory_ids"] == f'["{row.id}"]'
    assert inspector.lane(lane_of()) == []
    assert len(lane_writer.leases) == 0


async def test_what_was_said_in_a_job_that_was_stopped_is_stored_if_it_says_anything(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    texts = (
        "I prefer Celsius.", "stop, I am ill",
        "Thank you!", "How warm is it?", "Write a haiku about winter.",
    )  # fmt: skip
    stopped = [await submit_job(ledger, text) for text in texts]
    for job_id in stopped:
        await ledger.jobs.cancel(job_id)

    await lane_writer.write()

    assert [row.text for row in lane_writer.memories.rows] == list(texts[:2])
    turns = [await turn_of(ledger, one) for one in stopped]
    assert turns == [TurnState.STORED] * 2 + [TurnState.NOTHING] * 3
    codes = [(await ledger.queries.status(one)).turn_code for one in stopped[2:]]
    assert codes == ["pleasantry", "question_only", "request_only"]


async def test_all_waiting_turns_are_stored_in_submit_order(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    ids = [await submit_job(ledger, f"fact {n}") for n in range(4)]
    for job_id in (ids[2], ids[0], ids[3], ids[1]):
        held = await claim_job(ledger, job_id)
        await ledger.jobs.finish(held, reply_to(held))

    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == ids


async def test_one_hint_stores_a_bounded_number_of_turns(
    lane_writer: LaneWriter,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "BATCH", 2)
    ids = [await submit_and_answer(ledger, f"fact {n}") for n in range(3)]
    inspector.drop_hints()

    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == ids[:2]
    assert inspector.hinted("memories.0") == [lane_of()]


async def test_a_first_attempt_looks_for_nothing(lane_writer: LaneWriter, ledger: Ledger) -> None:
    await submit_and_answer(ledger, "I prefer Celsius.")

    await lane_writer.write()

    assert lane_writer.calls == ["add"]


@pytest.mark.parametrize(
    ("text", "kept", "state", "code"),
    [
        ("I prefer Celsius.", AddOutcome.NOTHING, TurnState.NOTHING, "no_fact"),
        ("How warm is it?", AddOutcome.NOTHING, TurnState.NOTHING, "question_only"),
        ("Thank you!", AddOutcome.NOTHING, TurnState.NOTHING, "pleasantry"),
        ("Write a haiku.", AddOutcome.NOTHING, TurnState.NOTHING, "request_only"),
        ("I prefer Celsius.", AddOutcome.STORED, TurnState.STORED, None),
        ("How warm is it?", AddOutcome.STORED, TurnState.STORED, None),
    ],
)
async def test_a_turn_ends_as_memory_says(
    settings: Settings,
    ledger: Ledger,
    text: str,
    kept: AddOutcome,
    state: TurnState,
    code: str | None,
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(outcome=kept))
    turn_id = await submit_and_answer(ledger, text)

    with observed() as seen:
        await lane_writer.write()

    assert await turn_of(ledger, turn_id) is state
    assert (await ledger.queries.status(turn_id)).turn_code == code
    assert [event.code for event in seen.of(TurnSettled)] == [code or ""]


async def test_a_lane_with_nothing_to_do_is_left_alone(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    await submit_job(ledger)
    await lane_writer.write()
    await submit_and_answer(ledger, user_id="bob")
    await claim_lane(ledger, lane_of("bob"))
    await lane_writer.write(lane_of("bob"))

    assert lane_writer.calls == []


# -- mem0 works on by itself


async def test_an_add_under_way_is_followed_to_its_end(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=3))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")

    for _ in range(4):
        assert await turn_of(ledger, turn_id) is not TurnState.STORED
        await lane_writer.write()
        if inspector.lane(lane_of()):
            assert inspector.waits_s(lane_of()) == pytest.approx(FOLLOW_S, abs=0.5)
            inspector.make_due(lane_of())

    assert lane_writer.calls == ["add", "follow", "follow", "follow"]
    assert lane_writer.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_an_add_under_way_spends_no_attempt(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=50))
    await submit_and_answer(ledger, "I prefer Celsius.")
    for _ in range(20):
        await lane_writer.write()
        inspector.make_due(lane_of())

    assert (await claim_lane(ledger)).turns[0].attempts == 0


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("key_revoked")])
async def test_an_add_that_cannot_be_asked_after_is_not_made_again(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, error: ProviderError
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    lane_writer.memories.fail("follow", error)
    for _ in range(2):
        inspector.make_due(lane_of())
        inspector.end_pause(REMEMBER_GATE)
        await lane_writer.write()

    assert lane_writer.calls.count("add") == 1
    assert lane_writer.memories.turns(ANN) == [turn_id]


async def test_an_add_that_came_to_nothing_is_made_again(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    lane_writer.memories.fail("follow", BadAnswer("extraction_failed"))
    for _ in range(3):
        inspector.make_due(lane_of())
        await lane_writer.write()

    assert lane_writer.calls == ["add", "follow", "find", "add", "follow"]
    assert lane_writer.memories.turns(ANN) == [turn_id]


# -- unknown outcomes


@pytest.mark.parametrize("error", [EventFailed(), EventGone()])
async def test_memories_that_a_lost_event_stored_are_found(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, error: ProviderError
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    lane_writer.memories.fail_after("follow", error)
    for _ in range(2):
        inspector.make_due(lane_of())
        await lane_writer.write()

    assert lane_writer.calls == ["add", "follow", "find"]
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert "event" not in inspector.job(turn_id)


@pytest.mark.parametrize("stored", [True, False])
async def test_an_add_that_does_not_say_what_it_stored_is_looked_up(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, *, stored: bool
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    lane_writer.memories.silent = True
    lane_writer.memories.outcome = AddOutcome.STORED if stored else AddOutcome.NOTHING
    inspector.make_due(lane_of())
    await lane_writer.write()

    assert lane_writer.calls == ["add", "follow", "find"]
    assert await turn_of(ledger, turn_id) is (TurnState.STORED if stored else TurnState.NOTHING)
    ids = [row.id for row in lane_writer.memories.rows]
    assert json.loads(inspector.job(turn_id).get("memory_ids", "[]")) == ids


async def test_an_answer_that_cannot_be_read_does_not_lose_the_event(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    lane_writer.memories.fail("follow", BadAnswer("bad_json", unknown_outcome=True))
    for _ in range(2):
        inspector.make_due(lane_of())
        await lane_writer.write()

    assert lane_writer.calls == ["add", "follow", "follow"]


@pytest.fixture
def impatient(settings: Settings) -> Settings:
    """Settings under which an add is late at once, and a canary waits a moment."""
    quick = {"pending_s": 0.001, "write_timeout_s": 0.05, "max_write_attempts": 3}
    return settings.model_copy(update=quick)


async def write_again_and_again(
    lane_writer: LaneWriter, inspector: LedgerInspector, users: Sequence[str], times: int
) -> None:
    for _ in range(times):
        for user in users:
            inspector.make_due(lane_of(user))
            inspector.end_pause(REMEMBER_GATE)
            await lane_writer.write(lane_of(user))
    await lane_writer.gates.flush()


@pytest.mark.finding(24)
async def test_an_add_that_is_pending_for_ever_is_an_outage_of_mem0(
    impatient: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "FOLLOW_S", 0.001)
    lane_writer = LaneWriter(impatient, ledger, FailingMemories(polls=100_000))
    users = ("ann", "bob", "eve")
    turns = [await submit_and_answer(ledger, "I like tea.", user_id=user) for user in users]

    await write_again_and_again(lane_writer, inspector, users, times=12)

    (gate,) = await ledger.gates.not_open()
    assert (gate.name, gate.code, gate.fault) == (REMEMBER_GATE, "pending_too_long", Fault.PROVIDER)
    assert lane_writer.calls.count("add") == len(users), "nothing is added again"
    for turn in turns:
        status = await ledger.queries.status(turn)
        assert (status.turn, status.turn_code) == (TurnState.PENDING, "pending_too_long")
        assert inspector.job(turn)["turn_attempts"] == "0"

    lane_writer.memories.finish()
    await write_again_and_again(lane_writer, inspector, users, times=2)

    assert [gate.state for gate in await ledger.gates.not_open()] == [GateState.OPENING]
    assert {await turn_of(ledger, turn) for turn in turns} == {TurnState.STORED}
    assert lane_writer.calls.count("add") == len(users)


@pytest.mark.finding(24)
@pytest.mark.parametrize(
    ("polls", "shut"),
    [(0, []), (100_000, [REMEMBER_GATE])],
    ids=["others end", "others are accepted"],
)
async def test_adds_that_hang_shut_the_gate_unless_others_end(
    impatient: Settings, ledger: Ledger, inspector: LedgerInspector, polls: int, shut: list[str]
) -> None:
    lane_writer = LaneWriter(impatient, ledger, FailingMemories(polls=100_000))
    stuck = await submit_and_answer(ledger, "I like tea.")
    await lane_writer.write()
    lane_writer.memories.polls = polls
    for number in range(5):
        await submit_and_answer(ledger, "I like tea.", user_id=f"user-{number}")
        await lane_writer.write(lane_of(f"user-{number}"))
        inspector.make_due(lane_of())
        await lane_writer.write()

    assert [gate.name for gate in await ledger.gates.not_open()] == shut
    assert await turn_of(ledger, stuck) is TurnState.PENDING


@pytest.mark.finding(24)
async def test_an_add_whose_event_hangs_is_found_if_it_was_stored(
    impatient: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(impatient, ledger, FailingMemories(polls=100_000))
    turn_id = await submit_and_answer(ledger, "I like tea.")
    await lane_writer.write()
    lane_writer.memories.rows.append(RecalledMemory("m", ANN, "I like tea.", 0.0, AT, turn_id))
    inspector.make_due(lane_of())
    await lane_writer.write()

    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert lane_writer.calls == ["add", "follow", "find"]


async def test_a_canary_waits_until_mem0_has_processed_its_add(
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "FOLLOW_S", 0.001)
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=3))
    turn_id = await submit_and_answer(ledger, "I like tea.")
    lane_writer.memories.fail("add", AccessDenied("key_refused"))
    await write_again_and_again(lane_writer, inspector, ("ann", "ann"), times=1)

    assert lane_writer.calls == ["add", "add", "follow", "follow", "follow"]
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert [gate.state for gate in await ledger.gates.not_open()] == [GateState.OPENING]


async def test_adds_that_mem0_cannot_process_shut_the_gate(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    users = [f"user-{number}" for number in range(8)]
    turns = [await submit_and_answer(ledger, "I like tea.", user_id=user) for user in users]
    for user in users:
        await lane_writer.write(lane_of(user))
    lane_writer.memories.fail("follow", EventFailed(), times=100)
    for user in users:
        inspector.make_due(lane_of(user))
        await lane_writer.write(lane_of(user))

    (gate,) = await ledger.gates.not_open()
    assert (gate.name, gate.code) == (REMEMBER_GATE, "event_failed")
    spent = [int(inspector.job(turn)["turn_attempts"]) for turn in turns]
    assert spent == [1] * 5 + [0] * 3, "those behind the gate spend nothing"


async def test_an_event_that_mem0_forgets_each_time_is_an_outage(
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(policy, "FOLLOW_S", 0.001)
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    lane_writer.memories.fail("follow", EventGone(), times=100)
    turn_id = await submit_and_answer(ledger, "I like tea.")

    await write_again_and_again(lane_writer, inspector, ("ann",), times=2 * 8)

    (gate,) = await ledger.gates.not_open()
    assert (gate.name, gate.code) == (REMEMBER_GATE, "event_gone")
    assert await turn_of(ledger, turn_id) is TurnState.PENDING
    assert inspector.job(turn_id)["turn_attempts"] == "0"


@pytest.mark.parametrize("error", [EventGone(), EventFailed()])
async def test_events_that_were_lost_in_an_outage_do_not_prolong_it(
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
    error: ProviderError,
) -> None:
    """Else each of the lanes that had one would shut the gate again, for up to a minute."""
    monkeypatch.setattr(policy, "FOLLOW_S", 0.001)
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1))
    users = [f"user-{number}" for number in range(8)]
    for user in users:
        lost = await submit_and_answer(ledger, "I like tea.", user_id=user)
        await lane_writer.write(lane_of(user))
        inspector.redis.hset(inspector.keys.job(lost), "turn_snoozes", 20)  # a long outage
    lane_writer.memories.fail("add", AccessDenied("key_refused"))
    turn = await submit_and_answer(ledger, "I like tea.")
    await lane_writer.write()

    lane_writer.memories.fail("follow", error, times=len(users))
    inspector.end_pause(REMEMBER_GATE)
    for user in (*users, "ann"):
        inspector.make_due(lane_of(user))
        await lane_writer.write(lane_of(user))
        await lane_writer.gates.flush()

    assert lane_writer.calls[-2:] == ["add", "follow"]
    assert all(inspector.waits_s(lane_of(user)) <= settings.visible_s for user in users)
    assert await turn_of(ledger, turn) is TurnState.STORED
    assert [gate.state for gate in await ledger.gates.not_open()] == [GateState.OPENING]


async def test_a_turn_that_may_be_stored_is_not_looked_for_at_once(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", Unavailable("cut", unknown_outcome=True))

    await lane_writer.write()

    assert inspector.waits_s(lane_of()) > settings.visible_s - 2


async def test_each_attempt_signs_what_it_adds(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    lane_writer.memories.fail("find", Unavailable("down"))
    await lane_writer.write()
    lane_writer.memories.rows, rows = [], lane_writer.memories.rows  # mem0 does not show it yet
    for _ in range(2):
        inspector.make_due(lane_of())
        await lane_writer.write()
    lane_writer.memories.rows += rows

    assert len(await lane_writer.memories.find_copies(ANN, turn_id)) == 2
    assert inspector.repairs() == [turn_id]


async def test_a_turn_that_may_be_stored_is_looked_for_before_it_is_added(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    await lane_writer.write()
    inspector.make_due(lane_of())

    await lane_writer.write()

    assert lane_writer.calls == ["add", "find"]
    assert lane_writer.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert inspector.job(turn_id)["memory_ids"] == f'["{lane_writer.memories.rows[0].id}"]'


async def test_a_turn_that_was_not_stored_after_all_is_added(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", Unavailable("cut", unknown_outcome=True))
    await lane_writer.write()
    inspector.make_due(lane_of())

    await lane_writer.write()

    assert lane_writer.calls == ["add", "find", "add"]
    assert lane_writer.memories.turns(ANN) == [turn_id]


@pytest.mark.parametrize(
    "error", [Unavailable("down"), RateLimited("rate_limited"), BadAnswer("garbled")]
)
async def test_a_look_that_fails_leaves_the_outcome_unknown(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, error: ProviderError
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    lane_writer.memories.fail("find", error)
    for _ in range(3):
        await lane_writer.write()
        inspector.make_due(lane_of())
        inspector.end_pause(REMEMBER_GATE)

    assert lane_writer.calls == ["add", "find", "find"]
    assert lane_writer.memories.turns(ANN) == [turn_id]


async def test_a_crash_in_the_middle_of_an_add_stores_once(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    crashed = await claim_lane(ledger)
    await ledger.turns.begin(crashed, turn_id)
    await lane_writer.memories.add(ANN, Turn(turn_id, "I prefer Celsius.", "", AT))
    inspector.make_due(lane_of())

    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_a_turn_that_crashed_too_often_is_buried_and_the_lane_goes_on(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    poison, after = (
        await submit_and_answer(ledger, "drink me"),
        await submit_and_answer(ledger, "I prefer Celsius."),
    )
    for _ in range(settings.max_write_attempts):
        await ledger.turns.begin(await claim_lane(ledger), poison)
        inspector.make_due(lane_of())
        await ledger.maintenance.sweep()

    await lane_writer.write()

    letter = await ledger.dead_letters.get(poison)
    assert (letter.code, letter.fault) == ("crashed_too_often", Fault.REQUEST)
    assert lane_writer.memories.turns(ANN) == [after]
    assert poison not in {call.about for call in lane_writer.memories.calls}


async def test_a_known_failure_needs_no_look(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", Unavailable("refused_connection"))
    await lane_writer.write()
    inspector.make_due(lane_of())

    await lane_writer.write()

    assert lane_writer.calls == ["add", "add"]


async def test_an_add_that_hangs_is_left_and_looked_for(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, memories: FailingMemories
) -> None:
    lane_writer = LaneWriter(
        settings.model_copy(update={"write_timeout_s": 0.02}), ledger, memories
    )
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    memories.hang("add")

    await lane_writer.write()
    assert (await ledger.queries.status(turn_id)).turn_code == "write_timeout"
    inspector.make_due(lane_of())
    await lane_writer.write()

    assert lane_writer.calls == ["add", "find", "add"]


async def test_an_unknown_error_is_taken_for_an_unknown_outcome(
    lane_writer: LaneWriter,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    stored_then_broke = lane_writer.memories.add

    async def add(owner: str, turn: Turn) -> AddResult:
        await stored_then_broke(owner, turn)
        raise RuntimeError(turn.user_text)

    monkeypatch.setattr(lane_writer.memories, "add", add)
    await lane_writer.write()
    monkeypatch.undo()
    inspector.make_due(lane_of())
    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == [turn_id]


# -- a shut gate


async def test_before_a_shut_gate_a_lane_waits_and_no_attempt_begins(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer.memories.fail("add", RateLimited("rate_limited", retry_after_s=30))
    await submit_and_answer(ledger, user_id="bob")
    await lane_writer.write(lane_of("bob"))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")

    await lane_writer.write()

    assert lane_writer.calls == ["add"]
    assert "turn_attempts" not in inspector.job(turn_id)
    assert await turn_of(ledger, turn_id) is TurnState.PENDING
    assert 29 < inspector.waits_s(lane_of()) < 32

    inspector.end_pause(REMEMBER_GATE)
    inspector.make_due(lane_of())
    await lane_writer.write()
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_once_the_gate_is_shut_a_lane_waits_no_longer_than_the_gate(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    """However often it failed before: else it would sleep on when mem0 is back."""
    await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", Unavailable("down"), times=5)
    for _ in range(5):
        inspector.make_due(lane_of())
        await lane_writer.write()

    assert inspector.waits_s(lane_of()) <= 1.0


async def test_a_writer_that_is_stopped_as_the_canary_makes_way(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer.memories.fail("add", RateLimited("rate_limited", retry_after_s=30))
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await lane_writer.write()
    inspector.end_pause(REMEMBER_GATE)
    inspector.make_due(lane_of())
    hang = lane_writer.memories.hang("add")
    work = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await lane_writer.gates.flush()

    await lane_writer.write()

    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert [gate.state for gate in await ledger.gates.not_open()] == [GateState.OPENING]


# -- failures, by whose they are


async def test_outages_bury_nothing_however_long_they_last(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", Unavailable("down"), times=50)
    lane_writer.memories.fail("add", RateLimited("rate_limited", retry_after_s=5), times=50)
    for _ in range(100):
        await lane_writer.write()
        assert inspector.waits_s(lane_of()) <= LONGEST_OUTAGE_PAUSE_S
        inspector.make_due(lane_of())
        inspector.end_pause(REMEMBER_GATE)

    await lane_writer.write()

    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert [letter async for letter in ledger.dead_letters.select()] == []


@pytest.mark.finding(2)
@pytest.mark.parametrize(
    "error", [AccessDenied("key_revoked"), NoSuchModel("memory_model_not_found")]
)
async def test_an_operators_fault_pauses_the_lane_and_spends_no_attempt(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, error: ProviderError
) -> None:
    await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", error)

    await lane_writer.write()

    assert inspector.waits_s(lane_of()) == pytest.approx(OPERATOR_PAUSE_S * 1.05, rel=0.06)
    (gate,) = await ledger.gates.not_open()
    assert (gate.name, gate.state, gate.code) == (REMEMBER_GATE, GateState.SHUT, error.code)
    inspector.make_due(lane_of())
    assert (await claim_lane(ledger)).turns[0].attempts == 0


async def test_a_bad_answer_is_retried_with_growing_pauses_and_then_buried(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.fail("add", BadAnswer("garbled"), times=settings.max_write_attempts)
    for attempt in range(1, settings.max_write_attempts):
        await lane_writer.write()
        assert 2 ** (attempt - 1) / 2 - 0.5 <= inspector.waits_s(lane_of()) <= 2 ** (attempt - 1)
        inspector.make_due(lane_of())

    await lane_writer.write()

    letter = await ledger.dead_letters.get(turn_id)
    assert (letter.code, letter.fault) == ("garbled", Fault.REQUEST)
    assert (letter.attempts, letter.worker_version) == (settings.max_write_attempts, VERSION)


async def test_the_lane_goes_on_after_a_burial_in_order(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    first, poison, last = [await submit_and_answer(ledger, f"fact {n}") for n in range(3)]
    lane_writer.memories.fail_second("add", Rejected("too_large"))

    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == [first, last]
    assert (await ledger.dead_letters.get(poison)).code == "too_large"
    assert await turn_of(ledger, last) is TurnState.STORED


async def test_a_bug_buries_a_turn_as_the_operators_fault_and_names_its_place(
    lane_writer: LaneWriter,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> AddResult:
        raise KeyError("my secret")

    monkeypatch.setattr(lane_writer.memories, "add", broken)
    turn = await submit_and_answer(ledger, "a fact")
    with observed(InternalError, TurnPostponed, TurnBuried) as seen:
        for _ in range(8):
            await lane_writer.write()
            inspector.make_due(lane_of())

    assert seen.names() == ["InternalError", "TurnPostponed"] * 7 + ["InternalError", "TurnBuried"]
    bug = seen.of(InternalError)[0]
    assert (bug.error, bug.place.partition(":")[0]) == (
        "KeyError",
        "afterword/workers/memories/add_batch.py",
    )
    assert all(one.counted for one in seen.of(TurnPostponed))
    assert {(one.job_id, one.lane) for _, one in seen.all} == {(turn, lane_tag(lane_of()))}
    assert (await ledger.dead_letters.get(turn)).fault == Fault.OPERATOR


async def test_a_turn_is_told_of_from_its_lane_to_its_end(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    turn = await submit_and_answer(ledger, "a fact")
    with observed() as seen:
        await lane_writer.write()

    assert seen.names() == ["LaneClaimed", "TurnBegun", "StoreAnswered", "TurnSettled"]
    (answered,) = seen.of(StoreAnswered)
    assert answered.outcome == "stored"
    assert 0 <= answered.duration_s < 60
    (settled,) = seen.of(TurnSettled)
    assert 0 <= settled.age_s < 60
    assert replace(settled, age_s=0) == TurnSettled(
        outcome=TurnState.STORED, code="", turns=1, memories=1, age_s=0
    )
    assert [one.job_id for one in seen.contexts(TurnSettled)] == [turn]


@pytest.mark.parametrize(
    ("error", "timed"), [(Unavailable("down"), ["failed"]), (NotAdmitted(1.0), [])]
)
async def test_an_attempt_that_fails_is_timed_unless_mem0_was_not_asked(
    lane_writer: LaneWriter, ledger: Ledger, error: ProviderError, timed: list[str]
) -> None:
    await submit_and_answer(ledger, "a fact")
    lane_writer.memories.fail("add", error)
    with observed() as seen:
        await lane_writer.write()
    assert [one.outcome for one in seen.of(StoreAnswered)] == timed


async def test_nothing_overtakes_a_turn_that_waits(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    ids = [await submit_and_answer(ledger, f"fact {n}") for n in range(3)]
    lane_writer.memories.fail_second("add", Unavailable("down"))

    await lane_writer.write()
    assert lane_writer.memories.turns(ANN) == ids[:1]
    inspector.make_due(lane_of())
    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == ids


async def test_one_user_that_waits_holds_up_no_other(
    lane_writer: LaneWriter, ledger: Ledger
) -> None:
    await submit_and_answer(ledger, "fact")
    await submit_and_answer(ledger, "fact", user_id="bob")
    lane_writer.memories.fail("add", Unavailable("down"))

    await lane_writer.write()
    await lane_writer.write(lane_of("bob"))

    assert len(lane_writer.memories.turns(memory_key("default", "bob"))) == 1


async def test_nothing_that_was_said_is_logged(
    lane_writer: LaneWriter,
    ledger: Ledger,
    inspector: LedgerInspector,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    await submit_and_answer(ledger, f"I like {SECRET}.")
    errors: list[ProviderError] = [Unavailable("down"), BadAnswer("garbled"), Rejected("too_large")]
    for error in errors:
        lane_writer.memories.fail("add", error)
        await lane_writer.write()
        if inspector.lane(lane_of()):
            inspector.make_due(lane_of())

    assert "too_large" in caplog.text
    assert SECRET not in caplog.text


# -- stopped on the way


async def test_a_stop_gives_the_turn_back_uncounted(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    hang = lane_writer.memories.hang("add")
    work = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()

    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert await turn_of(ledger, turn_id) is TurnState.PENDING
    inspector.make_due(lane_of())
    held = await claim_lane(ledger)
    assert held.turns[0].attempts == 0
    assert await ledger.turns.begin(held, turn_id), "it may have been stored all the same"


async def test_a_lost_lane_stops_the_write_at_once_and_settles_nothing(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    hang = lane_writer.memories.hang("add")
    work = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()
    inspector.make_due(lane_of())
    newer = await claim_lane(ledger)

    await lane_writer.leases.renew_all()
    await asyncio.wait_for(work, 5)

    assert await ledger.turns.begin(newer, turn_id)
    assert await turn_of(ledger, turn_id) is TurnState.WRITING
    await until(lambda: len(lane_writer.leases) == 0, "nothing is held")


async def test_a_lease_that_could_not_be_renewed_is_left_to_the_sweep(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    hang = lane_writer.memories.hang("add")
    work = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()
    before = inspector.job(turn_id)

    lane_writer.leases.lose(lane_of())
    await work

    assert inspector.job(turn_id) == before


async def test_rows_of_others_are_never_taken_for_stored(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    lane_writer.memories.rows.append(RecalledMemory("m", "default/bob", "x", 0.0, AT, turn_id))
    lane_writer.memories.fail("add", Unavailable("cut", unknown_outcome=True))
    await lane_writer.write()
    inspector.make_due(lane_of())

    await lane_writer.write()

    assert lane_writer.memories.turns(ANN) == [turn_id]


async def test_a_writer_that_was_stopped_before_its_add_does_not_add(
    lane_writer: LaneWriter, ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked, and finds that more of its lease is over than it knows to be renewed."""
    turn_id = await submit_and_answer(ledger, "I prefer Celsius.")
    await ledger.turns.begin(held := await claim_lane(ledger), turn_id)
    await ledger.turns.postpone(held, turn_id, 0, counted=False, code="x", unknown_outcome=True)
    hang = lane_writer.memories.hang("find")
    work = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()
    stopped_until = lane_writer.leases.now() + settings.lease_s

    monkeypatch.setattr(lane_writer.leases, "now", lambda: stopped_until)
    hang.released.set()
    await work

    assert lane_writer.calls == ["find"]
    assert await turn_of(ledger, turn_id) is TurnState.WRITING
