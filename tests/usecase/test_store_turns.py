"""Storing turns: once, in order, whatever fails, and never at the price of the lane."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Fault,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.gate import REMEMBER
from afterword.workers.memories import lane
from afterword.workers.ports import Added, Kept, Recalled, Turn
from afterword.workers.rules.retry_policy import FOLLOW_S, LONGEST_PAUSE_S, OPERATOR_PAUSE_S
from tests.kit.ledger.builder import Book, answer, claim, lane_of, reply_to, submit, take
from tests.kit.ledger.lane_writer import VERSION, Desk, Memories
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
SECRET = "marmalade"
AT = datetime(2026, 5, 8, tzinfo=UTC)


@pytest.fixture
def memories() -> Memories:
    return Memories()


@pytest.fixture
def desk(settings: Settings, ledger: Ledger, memories: Memories) -> Desk:
    return Desk(settings, ledger, memories)


async def turn_of(ledger: Ledger, turn_id: str) -> TurnState:
    return (await ledger.reading.status(turn_id)).turn


# -- the straight way


async def test_a_turn_is_stored_with_its_own_time_and_name(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.", conversation_id="c")

    await desk.write()

    (row,) = desk.memories.rows
    assert (row.owner, row.text, row.turn_id) == (ANN, "I prefer Celsius.", turn_id)
    assert row.created_at == (await ledger.reading.status(turn_id)).created_at
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert book.job(turn_id)["memory_ids"] == f'["{row.id}"]'
    assert book.lane(lane_of()) == []
    assert len(desk.leases) == 0


async def test_all_waiting_turns_are_stored_in_submit_order(desk: Desk, ledger: Ledger) -> None:
    ids = [await submit(ledger, f"fact {n}") for n in range(4)]
    for job_id in (ids[2], ids[0], ids[3], ids[1]):
        held = await claim(ledger, job_id)
        await ledger.jobs.finish(held, reply_to(held))

    await desk.write()

    assert desk.memories.turns(ANN) == ids


async def test_one_hint_stores_a_bounded_number_of_turns(
    desk: Desk, ledger: Ledger, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "BATCH", 2)
    ids = [await answer(ledger, f"fact {n}") for n in range(3)]
    book.drop_hints()

    await desk.write()

    assert desk.memories.turns(ANN) == ids[:2]
    assert book.hinted("memories.0") == [lane_of()]


async def test_a_first_attempt_looks_for_nothing(desk: Desk, ledger: Ledger) -> None:
    await answer(ledger, "I prefer Celsius.")

    await desk.write()

    assert desk.calls == ["add"]


@pytest.mark.parametrize(
    ("kept", "state"), [(Kept.NOTHING, TurnState.NOTHING), (Kept.STORED, TurnState.STORED)]
)
async def test_a_turn_ends_as_memory_says(
    settings: Settings, ledger: Ledger, kept: Kept, state: TurnState
) -> None:
    desk = Desk(settings, ledger, Memories(outcome=kept))
    turn_id = await answer(ledger, "I prefer Celsius.")

    await desk.write()

    assert await turn_of(ledger, turn_id) is state


async def test_a_skipped_turn_says_why(desk: Desk, ledger: Ledger) -> None:
    turn_id = await answer(ledger, "What time is it?")

    await desk.write()

    status = await ledger.reading.status(turn_id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "only_asks")


async def test_a_lane_with_nothing_to_do_is_left_alone(desk: Desk, ledger: Ledger) -> None:
    await submit(ledger)
    await desk.write()
    await answer(ledger, user_id="bob")
    await take(ledger, lane_of("bob"))
    await desk.write(lane_of("bob"))

    assert desk.calls == []


# -- mem0 works on by itself


async def test_an_add_under_way_is_followed_to_its_end(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    desk = Desk(settings, ledger, Memories(polls=3))
    turn_id = await answer(ledger, "I prefer Celsius.")

    for _ in range(4):
        assert await turn_of(ledger, turn_id) is not TurnState.STORED
        await desk.write()
        if book.lane(lane_of()):
            assert book.waits_s(lane_of()) == pytest.approx(FOLLOW_S, abs=0.5)
            book.make_due(lane_of())

    assert desk.calls == ["add", "follow", "follow", "follow"]
    assert desk.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_an_add_under_way_spends_no_attempt(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    desk = Desk(settings, ledger, Memories(polls=50))
    await answer(ledger, "I prefer Celsius.")
    for _ in range(20):
        await desk.write()
        book.make_due(lane_of())

    assert (await take(ledger)).turns[0].attempts == 0


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("key_revoked")])
async def test_an_add_that_cannot_be_asked_after_is_not_made_again(
    settings: Settings, ledger: Ledger, book: Book, error: ProviderError
) -> None:
    desk = Desk(settings, ledger, Memories(polls=1))
    turn_id = await answer(ledger, "I prefer Celsius.")
    await desk.write()
    desk.memories.fail("follow", error)
    for _ in range(2):
        book.make_due(lane_of())
        book.end_pause(REMEMBER)
        await desk.write()

    assert desk.calls.count("add") == 1
    assert desk.memories.turns(ANN) == [turn_id]


async def test_an_add_that_came_to_nothing_is_made_again(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    desk = Desk(settings, ledger, Memories(polls=1))
    turn_id = await answer(ledger, "I prefer Celsius.")
    await desk.write()
    desk.memories.fail("follow", BadAnswer("extraction_failed"))
    for _ in range(3):
        book.make_due(lane_of())
        await desk.write()

    assert desk.calls == ["add", "follow", "find", "add", "follow"]
    assert desk.memories.turns(ANN) == [turn_id]


# -- unknown outcomes


@pytest.mark.parametrize("code", ["event_failed", "event_gone"])
async def test_what_a_lost_event_stored_all_the_same_is_found(
    settings: Settings, ledger: Ledger, book: Book, code: str
) -> None:
    desk = Desk(settings, ledger, Memories(polls=1))
    turn_id = await answer(ledger, "I prefer Celsius.")
    await desk.write()
    desk.memories.fail_after("follow", BadAnswer(code))
    for _ in range(2):
        book.make_due(lane_of())
        await desk.write()

    assert desk.calls == ["add", "follow", "find"]
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert "event" not in book.job(turn_id)


async def test_an_answer_that_cannot_be_read_does_not_lose_the_event(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    desk = Desk(settings, ledger, Memories(polls=1))
    await answer(ledger, "I prefer Celsius.")
    await desk.write()
    desk.memories.fail("follow", BadAnswer("bad_json", unknown_outcome=True))
    for _ in range(2):
        book.make_due(lane_of())
        await desk.write()

    assert desk.calls == ["add", "follow", "follow"]


async def test_an_add_that_is_pending_for_ever_is_counted_and_buried(
    settings: Settings, ledger: Ledger, book: Book
) -> None:
    brief = settings.model_copy(update={"pending_s": 0.001, "max_write_attempts": 3})
    desk = Desk(brief, ledger, Memories(polls=1000))
    turn_id = await answer(ledger, "I prefer Celsius.")
    for _ in range(12):
        if book.places(lane_of()):
            book.make_due(lane_of())
            await desk.write()

    assert await turn_of(ledger, turn_id) is TurnState.DEAD
    assert book.job(turn_id)["t_code"] == "pending_too_long"
    assert desk.calls == ["add", "follow", "find", "add", "follow", "find", "add", "follow"]


async def test_what_may_be_stored_is_not_looked_for_at_once(
    desk: Desk, ledger: Ledger, book: Book, settings: Settings
) -> None:
    await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", Unavailable("cut", unknown_outcome=True))

    await desk.write()

    assert book.waits_s(lane_of()) > settings.visible_s - 2


async def test_each_attempt_signs_what_it_adds(desk: Desk, ledger: Ledger, book: Book) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    desk.memories.fail("find", Unavailable("down"))
    await desk.write()
    desk.memories.rows, rows = [], desk.memories.rows  # mem0 does not show it yet
    for _ in range(2):
        book.make_due(lane_of())
        await desk.write()
    desk.memories.rows += rows

    assert len(await desk.memories.copies(ANN, turn_id)) == 2
    assert book.repairs() == [turn_id]


async def test_what_may_be_stored_is_looked_for_before_it_is_added(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    await desk.write()
    book.make_due(lane_of())

    await desk.write()

    assert desk.calls == ["add", "find"]
    assert desk.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert book.job(turn_id)["memory_ids"] == f'["{desk.memories.rows[0].id}"]'


async def test_what_was_not_stored_after_all_is_added(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", Unavailable("cut", unknown_outcome=True))
    await desk.write()
    book.make_due(lane_of())

    await desk.write()

    assert desk.calls == ["add", "find", "add"]
    assert desk.memories.turns(ANN) == [turn_id]


@pytest.mark.parametrize(
    "error", [Unavailable("down"), RateLimited("rate_limited"), BadAnswer("garbled")]
)
async def test_a_look_that_fails_leaves_the_outcome_unknown(
    desk: Desk, ledger: Ledger, book: Book, error: ProviderError
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
    desk.memories.fail("find", error)
    for _ in range(3):
        await desk.write()
        book.make_due(lane_of())
        book.end_pause(REMEMBER)

    assert desk.calls == ["add", "find", "find"]
    assert desk.memories.turns(ANN) == [turn_id]


async def test_a_crash_in_the_middle_of_an_add_stores_once(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    crashed = await take(ledger)
    await ledger.lanes.begin(crashed, turn_id)
    await desk.memories.add(ANN, Turn(turn_id, "I prefer Celsius.", "", AT))
    book.make_due(lane_of())

    await desk.write()

    assert desk.memories.turns(ANN) == [turn_id]
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_a_turn_that_crashed_too_often_is_buried_and_the_lane_goes_on(
    desk: Desk, ledger: Ledger, book: Book, settings: Settings
) -> None:
    poison, after = await answer(ledger, "drink me"), await answer(ledger, "I prefer Celsius.")
    for _ in range(settings.max_write_attempts):
        await ledger.lanes.begin(await take(ledger), poison)
        book.make_due(lane_of())
        await ledger.upkeep.sweep()

    await desk.write()

    letter = await ledger.dead.letter(poison)
    assert (letter.code, letter.fault) == ("crashed_too_often", Fault.REQUEST)
    assert desk.memories.turns(ANN) == [after]
    assert poison not in {call.about for call in desk.memories.calls}


async def test_a_known_failure_needs_no_look(desk: Desk, ledger: Ledger, book: Book) -> None:
    await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", Unavailable("refused_connection"))
    await desk.write()
    book.make_due(lane_of())

    await desk.write()

    assert desk.calls == ["add", "add"]


async def test_an_add_that_hangs_is_left_and_looked_for(
    settings: Settings, ledger: Ledger, book: Book, memories: Memories
) -> None:
    desk = Desk(settings.model_copy(update={"write_timeout_s": 0.02}), ledger, memories)
    turn_id = await answer(ledger, "I prefer Celsius.")
    memories.hang("add")

    await desk.write()
    assert (await ledger.reading.status(turn_id)).turn_code == "write_timeout"
    book.make_due(lane_of())
    await desk.write()

    assert desk.calls == ["add", "find", "add"]


async def test_an_unknown_error_is_taken_for_an_unknown_outcome(
    desk: Desk, ledger: Ledger, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    stored_then_broke = desk.memories.add

    async def add(owner: str, turn: Turn) -> Added:
        await stored_then_broke(owner, turn)
        raise RuntimeError(turn.user_text)

    monkeypatch.setattr(desk.memories, "add", add)
    await desk.write()
    monkeypatch.undo()
    book.make_due(lane_of())
    await desk.write()

    assert desk.memories.turns(ANN) == [turn_id]


# -- a shut gate


async def test_before_a_shut_gate_a_lane_waits_and_no_attempt_begins(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    desk.memories.fail("add", RateLimited("rate_limited", retry_after_s=30))
    await answer(ledger, user_id="bob")
    await desk.write(lane_of("bob"))
    turn_id = await answer(ledger, "I prefer Celsius.")

    await desk.write()

    assert desk.calls == ["add"]
    assert "t_attempts" not in book.job(turn_id)
    assert await turn_of(ledger, turn_id) is TurnState.PENDING
    assert 29 < book.waits_s(lane_of()) < 32

    book.end_pause(REMEMBER)
    book.make_due(lane_of())
    await desk.write()
    assert await turn_of(ledger, turn_id) is TurnState.STORED


async def test_once_the_gate_is_shut_a_lane_waits_no_longer_than_the_gate(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    """However often it failed before: else it would sleep on when mem0 is back."""
    await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", Unavailable("down"), times=5)
    for _ in range(5):
        book.make_due(lane_of())
        await desk.write()

    assert book.waits_s(lane_of()) <= 1.0


async def test_a_writer_that_is_stopped_as_the_canary_makes_way(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    desk.memories.fail("add", RateLimited("rate_limited", retry_after_s=30))
    turn_id = await answer(ledger, "I prefer Celsius.")
    await desk.write()
    book.end_pause(REMEMBER)
    book.make_due(lane_of())
    hang = desk.memories.hang("add")
    work = asyncio.create_task(desk.write())
    await hang.reached.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    await desk.gates.settle()

    await desk.write()

    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert [gate.state for gate in await ledger.gates.all()] == [GateState.OPENING]


# -- failures, by whose they are


async def test_outages_bury_nothing_however_long_they_last(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", Unavailable("down"), times=50)
    desk.memories.fail("add", RateLimited("rate_limited", retry_after_s=5), times=50)
    for _ in range(100):
        await desk.write()
        assert book.waits_s(lane_of()) <= LONGEST_PAUSE_S
        book.make_due(lane_of())
        book.end_pause(REMEMBER)

    await desk.write()

    assert await turn_of(ledger, turn_id) is TurnState.STORED
    assert [letter async for letter in ledger.dead.letters()] == []


async def test_what_is_ours_pauses_the_lane_and_spends_nothing(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", AccessDenied("key_revoked"))

    await desk.write()

    assert book.waits_s(lane_of()) == pytest.approx(OPERATOR_PAUSE_S * 1.05, rel=0.06)
    book.make_due(lane_of())
    assert (await take(ledger)).turns[0].attempts == 0


async def test_a_bad_answer_is_retried_with_growing_pauses_and_then_buried(
    desk: Desk, ledger: Ledger, book: Book, settings: Settings
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.fail("add", BadAnswer("garbled"), times=settings.max_write_attempts)
    for attempt in range(1, settings.max_write_attempts):
        await desk.write()
        assert 2 ** (attempt - 1) / 2 - 0.5 <= book.waits_s(lane_of()) <= 2 ** (attempt - 1)
        book.make_due(lane_of())

    await desk.write()

    letter = await ledger.dead.letter(turn_id)
    assert (letter.code, letter.fault) == ("garbled", Fault.REQUEST)
    assert (letter.attempts, letter.worker_version) == (settings.max_write_attempts, VERSION)


async def test_the_lane_goes_on_after_a_burial_in_order(desk: Desk, ledger: Ledger) -> None:
    first, poison, last = [await answer(ledger, f"fact {n}") for n in range(3)]
    desk.memories.fail_second("add", Rejected("too_large"))

    await desk.write()

    assert desk.memories.turns(ANN) == [first, last]
    assert (await ledger.dead.letter(poison)).code == "too_large"
    assert await turn_of(ledger, last) is TurnState.STORED


async def test_nothing_overtakes_a_turn_that_waits(desk: Desk, ledger: Ledger, book: Book) -> None:
    ids = [await answer(ledger, f"fact {n}") for n in range(3)]
    desk.memories.fail_second("add", Unavailable("down"))

    await desk.write()
    assert desk.memories.turns(ANN) == ids[:1]
    book.make_due(lane_of())
    await desk.write()

    assert desk.memories.turns(ANN) == ids


async def test_one_user_that_waits_holds_up_no_other(desk: Desk, ledger: Ledger) -> None:
    await answer(ledger, "fact")
    await answer(ledger, "fact", user_id="bob")
    desk.memories.fail("add", Unavailable("down"))

    await desk.write()
    await desk.write(lane_of("bob"))

    assert len(desk.memories.turns(memory_key("default", "bob"))) == 1


async def test_nothing_that_was_said_is_logged(
    desk: Desk, ledger: Ledger, book: Book, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await answer(ledger, f"I like {SECRET}.")
    errors: list[ProviderError] = [Unavailable("down"), BadAnswer("garbled"), Rejected("too_large")]
    for error in errors:
        desk.memories.fail("add", error)
        await desk.write()
        if book.lane(lane_of()):
            book.make_due(lane_of())

    assert "too_large" in caplog.text
    assert SECRET not in caplog.text


# -- stopped on the way


async def test_a_stop_gives_the_turn_back_uncounted(desk: Desk, ledger: Ledger, book: Book) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    hang = desk.memories.hang("add")
    work = asyncio.create_task(desk.write())
    await hang.reached.wait()

    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work

    assert await turn_of(ledger, turn_id) is TurnState.PENDING
    book.make_due(lane_of())
    held = await take(ledger)
    assert held.turns[0].attempts == 0
    assert await ledger.lanes.begin(held, turn_id), "it may have been stored all the same"


async def test_whoever_loses_the_lane_stops_at_once_and_settles_nothing(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    hang = desk.memories.hang("add")
    work = asyncio.create_task(desk.write())
    await hang.reached.wait()
    book.make_due(lane_of())
    newer = await take(ledger)

    await desk.leases._renew_all()
    await asyncio.wait_for(work, 5)

    assert await ledger.lanes.begin(newer, turn_id)
    assert await turn_of(ledger, turn_id) is TurnState.WRITING
    await until(lambda: len(desk.leases) == 0, "nothing is held")


async def test_what_could_not_be_renewed_is_left_to_the_sweep(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    hang = desk.memories.hang("add")
    work = asyncio.create_task(desk.write())
    await hang.reached.wait()
    before = book.job(turn_id)

    desk.leases.lose(lane_of())
    await work

    assert book.job(turn_id) == before


async def test_rows_of_others_are_never_taken_for_stored(
    desk: Desk, ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")
    desk.memories.rows.append(Recalled("m", "default/bob", "x", 0.0, AT, turn_id))
    desk.memories.fail("add", Unavailable("cut", unknown_outcome=True))
    await desk.write()
    book.make_due(lane_of())

    await desk.write()

    assert desk.memories.turns(ANN) == [turn_id]


async def test_a_writer_that_was_stopped_before_its_add_does_not_add(
    desk: Desk, ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has looked, and finds that more of its lease is over than it knows to be renewed."""
    turn_id = await answer(ledger, "I prefer Celsius.")
    await ledger.lanes.begin(held := await take(ledger), turn_id)
    await ledger.lanes.postpone(held, turn_id, 0, counted=False, code="x", unknown_outcome=True)
    hang = desk.memories.hang("find")
    work = asyncio.create_task(desk.write())
    await hang.reached.wait()
    stopped_until = desk.leases.now() + settings.lease_s

    monkeypatch.setattr(desk.leases, "now", lambda: stopped_until)
    hang.released.set()
    await work

    assert desk.calls == ["find"]
    assert await turn_of(ledger, turn_id) is TurnState.WRITING
