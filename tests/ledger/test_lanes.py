"""One user's lane: one writer at a time, in submit order, and what a crash leaves to the next."""

from __future__ import annotations

import asyncio

import pytest

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.lifecycle import TurnState
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_job,
)

pytestmark = pytest.mark.redis


async def postpone(
    ledger: Ledger, held: LaneClaim, turn_id: str, *, counted: bool = True, unknown: bool = False
) -> None:
    await ledger.turns.postpone(
        held, turn_id, 5, counted=counted, code="x", unknown_outcome=unknown
    )


async def test_a_lane_has_one_writer(ledger: Ledger) -> None:
    await submit_and_answer(ledger)

    claims = await asyncio.gather(
        *(ledger.turns.claim_lane(lane_of(), f"t{n}", max_turns=5) for n in range(20))
    )

    assert sum(one is not None for one in claims) == 1


async def test_asking_again_with_the_same_token_is_granted_once(ledger: Ledger) -> None:
    await submit_and_answer(ledger)

    first, again = [await ledger.turns.claim_lane(lane_of(), "t", max_turns=5) for _ in range(2)]

    assert first is not None
    assert again == first


async def test_turns_come_in_submit_order_however_they_were_answered(ledger: Ledger) -> None:
    ids = [await submit_job(ledger, f"m{n}") for n in range(4)]
    for job_id in reversed(ids):
        held = await claim_job(ledger, job_id)
        await ledger.jobs.finish(held, reply_to(held))

    held_lane = await claim_lane(ledger)

    assert [turn.id for turn in held_lane.turns] == ids
    assert [turn.user_text for turn in held_lane.turns] == ["m0", "m1", "m2", "m3"]


async def test_a_writer_takes_no_more_than_it_asked_for(ledger: Ledger) -> None:
    ids = [await submit_and_answer(ledger) for _ in range(4)]

    assert [turn.id for turn in (await claim_lane(ledger, max_turns=2)).turns] == ids[:2]


async def test_a_turn_holds_what_memory_needs(ledger: Ledger) -> None:
    await submit_and_answer(ledger, "I prefer Celsius.", conversation_id="c1")

    (turn,) = (await claim_lane(ledger)).turns

    assert (turn.user_text, turn.reply_text) == ("I prefer Celsius.", "hi there")
    assert turn.conversation_id == "c1"
    assert (turn.attempts, turn.snoozes, turn.event_id) == (0, 0, None)
    assert turn.at == (await ledger.queries.status(turn.id)).created_at


async def test_an_unfinished_job_holds_back_all_behind_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_and_answer(ledger, "first")
    blocking = await submit_job(ledger, "not yet answered")
    last = await submit_and_answer(ledger, "last")
    held = await claim_lane(ledger)
    assert [turn.id for turn in held.turns] == [first]
    await _store_all(ledger, held)

    assert await ledger.turns.claim_lane(lane_of(), "t", max_turns=5) is None
    assert inspector.places(lane_of()) == []

    running = await claim_job(ledger, blocking)
    await ledger.jobs.finish(running, reply_to(running))
    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [blocking, last]


async def test_lanes_of_different_users_go_side_by_side(ledger: Ledger) -> None:
    for user in ("ann", "bob"):
        await submit_and_answer(ledger, user_id=user)

    ann, bob = await claim_lane(ledger), await claim_lane(ledger, lane_of("bob"))

    assert {ann.lane, bob.lane} == {lane_of(), lane_of("bob")}


async def test_a_lane_with_more_to_write_is_hinted_when_it_is_let_go(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    for _ in range(2):
        await submit_and_answer(ledger)
    held = await claim_lane(ledger, max_turns=1)
    inspector.drop_hints()

    await _store_all(ledger, held)

    assert inspector.hinted("memories.0") == [lane_of()]


async def test_a_lane_that_is_let_go_for_a_while_waits(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    inspector.drop_hints()

    await ledger.turns.release_lane(held, 7.0)

    assert inspector.hinted("memories.0") == []
    assert inspector.waits_s(lane_of()) == pytest.approx(7, abs=0.5)
    assert "turn_attempts" not in inspector.job(turn_id)
    with pytest.raises(LeaseLost):
        await ledger.turns.release_lane(held)


async def test_a_lane_with_nothing_left_is_forgotten(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    inspector.drop_hints()

    await _store_all(ledger, held)

    assert inspector.hinted("memories.0") == []
    assert inspector.places(lane_of()) == []
    assert list(inspector.redis.hgetall(inspector.keys.fences)) == []


async def test_a_turn_that_comes_while_its_lane_is_written_is_not_lost(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    inspector.drop_hints()
    await submit_and_answer(ledger)
    assert inspector.hinted("memories.0") == []

    await _store_all(ledger, held)

    assert inspector.hinted("memories.0") == [lane_of()]


async def test_begin_is_clear_the_first_time_and_unknown_after_a_crash(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    crashed = await claim_lane(ledger)
    assert [await ledger.turns.begin(crashed, turn_id) for _ in range(2)] == [False, False]

    inspector.make_due(lane_of())
    after = await claim_lane(ledger)

    assert [await ledger.turns.begin(after, turn_id) for _ in range(2)] == [True, True]
    assert after.turns[0].attempts == 1


async def test_begin_after_a_crash_stays_unknown_until_it_is_settled(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    for _ in range(3):
        held = await claim_lane(ledger)
        await ledger.turns.begin(held, turn_id)
        inspector.make_due(lane_of())

    assert await ledger.turns.begin(await claim_lane(ledger), turn_id)


@pytest.mark.parametrize("unknown", [False, True])
async def test_a_postponed_turn_remembers_whether_it_may_be_stored(
    ledger: Ledger, inspector: LedgerInspector, unknown: bool
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.record_event(held, turn_id, "event-1")

    await postpone(ledger, held, turn_id, unknown=unknown)

    inspector.make_due(lane_of())
    again = await claim_lane(ledger)
    assert again.turns[0].event_id == ("event-1" if unknown else None)
    assert await ledger.turns.begin(again, turn_id) is unknown


@pytest.mark.parametrize(("counted", "attempts", "snoozes"), [(True, 1, 0), (False, 0, 1)])
async def test_a_retry_spends_an_attempt_and_a_snooze_does_not(
    ledger: Ledger, inspector: LedgerInspector, counted: bool, attempts: int, snoozes: int
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)

    for _ in range(2):
        await postpone(ledger, held, turn_id, counted=counted)

    inspector.make_due(lane_of())
    (turn,) = (await claim_lane(ledger)).turns
    assert (turn.attempts, turn.snoozes) == (attempts, snoozes)


async def test_waiting_for_mem0_spends_no_attempt(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    for code in ("storing", "overloaded", "drained"):
        held = await claim_lane(ledger)
        await ledger.turns.begin(held, turn_id)
        await ledger.turns.postpone(
            held, turn_id, 5, counted=False, code=code, unknown_outcome=True
        )
        inspector.make_due(lane_of())
    assert (await claim_lane(ledger)).turns[0].snoozes == 1


async def test_a_postponed_lane_waits_as_a_whole(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, first)
    await postpone(ledger, held, first)
    inspector.drop_hints()

    await submit_and_answer(ledger)

    assert inspector.hinted("memories.0") == []
    assert inspector.places(lane_of()) == [("waiting", "memories.0")]
    inspector.pass_time(6)
    await ledger.maintenance.sweep()
    assert inspector.hinted("memories.0") == [lane_of()]


@pytest.mark.parametrize("outcome", [TurnState.STORED, TurnState.NOTHING])
async def test_a_settled_turn_leaves_its_lane_and_may_be_forgotten(
    ledger: Ledger, inspector: LedgerInspector, outcome: TurnState
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)

    for _ in range(2):
        await ledger.turns.settle(held, turn_id, outcome, memory_ids=["m1"])

    status = await ledger.queries.status(turn_id)
    assert (status.turn, status.turn_code) == (outcome, None)
    assert inspector.lane(lane_of()) == []
    assert inspector.job(turn_id)["memory_ids"] == '["m1"]'
    assert 0 < inspector.redis.pttl(inspector.keys.job(turn_id)) <= 86_400_000


async def test_a_writer_that_lost_the_lane_can_change_nothing(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    old = await claim_lane(ledger)
    await ledger.turns.begin(old, turn_id)
    inspector.make_due(lane_of())
    new = await claim_lane(ledger)
    await ledger.turns.begin(new, turn_id)

    for late in (
        ledger.turns.begin(old, turn_id),
        ledger.turns.record_event(old, turn_id, "e"),
        ledger.turns.record_facts(old, turn_id, "f"),
        ledger.turns.settle(old, turn_id, TurnState.STORED),
        postpone(ledger, old, turn_id),
        ledger.turns.bury(old, turn_id, "x", Fault.REQUEST, "v"),
        ledger.turns.release_lane(old),
    ):
        with pytest.raises(LeaseLost):
            await late

    await ledger.turns.settle(new, turn_id, TurnState.STORED)


async def test_a_record_that_is_missing_does_not_block_its_lane(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    gone, there = await submit_and_answer(ledger), await submit_and_answer(ledger)
    inspector.redis.delete(inspector.keys.job(gone))

    assert [turn.id for turn in (await claim_lane(ledger)).turns] == [there]


async def _store_all(ledger: Ledger, held: LaneClaim) -> None:
    for turn in held.turns:
        await ledger.turns.begin(held, turn.id)
        await ledger.turns.settle(held, turn.id, TurnState.STORED)
    await ledger.turns.release_lane(held)


async def test_a_turn_of_a_newer_version_is_held_and_so_is_what_stands_behind_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    newer, behind = await submit_and_answer(ledger), await submit_and_answer(ledger)
    inspector.redis.hset(inspector.keys.job(newer), "version", RECORD_VERSION + 1)

    assert await ledger.turns.claim_lane(lane_of(), "t", max_turns=5) is None
    assert inspector.places(lane_of()) == [("waiting", "memories.0")]
    assert (await claim_job(ledger, await submit_job(ledger, "next"))).overlay[-1].id == behind
    assert inspector.job(newer)["turn"] == TurnState.PENDING

    inspector.redis.hset(inspector.keys.job(newer), "version", RECORD_VERSION)
    held = await claim_lane(ledger)
    assert [turn.id for turn in held.turns] == [newer, behind]


async def test_facts_are_kept_until_the_turn_is_settled(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    assert held.turns[0].facts == ""
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.record_facts(held, turn_id, "she likes tea")
    await postpone(ledger, held, turn_id)
    inspector.make_due(lane_of())
    again = await claim_lane(ledger)
    assert again.turns[0].facts == "she likes tea"
    await ledger.turns.begin(again, turn_id)
    await ledger.turns.settle(again, turn_id, TurnState.STORED)
    assert not inspector.redis.hexists(inspector.keys.job(turn_id), "facts")


async def test_an_event_is_as_old_as_the_first_note_of_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.record_event(held, turn_id, "e1")
    inspector.redis.hincrby(inspector.keys.job(turn_id), "event_at", -60_000)
    await ledger.turns.record_event(held, turn_id, "e1")
    inspector.make_due(lane_of())

    (turn,) = (await claim_lane(ledger)).turns

    assert turn.event_id == "e1"
    assert 60 <= turn.event_age_s < 120


async def test_another_event_begins_anew_and_one_that_is_over_is_forgotten(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.record_event(held, turn_id, "e1")
    inspector.redis.hincrby(inspector.keys.job(turn_id), "event_at", -60_000)
    await ledger.turns.record_event(held, turn_id, "e2")
    inspector.make_due(lane_of())
    held = await claim_lane(ledger)
    assert (held.turns[0].event_id, held.turns[0].event_age_s < 60) == ("e2", True)

    await ledger.turns.record_event(held, turn_id, "")
    inspector.make_due(lane_of())

    (turn,) = (await claim_lane(ledger)).turns
    assert (turn.event_id, turn.event_age_s) == (None, 0)


@pytest.mark.parametrize(("event", "doubted"), [("", True), ("e1", False)])
async def test_a_second_writer_is_a_doubt_unless_it_follows_an_event(
    ledger: Ledger, inspector: LedgerInspector, event: str, *, doubted: bool
) -> None:
    turn_id = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.record_event(held, turn_id, event)
    inspector.make_due(lane_of())
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)

    await ledger.turns.settle(held, turn_id, TurnState.STORED)

    assert inspector.repairs() == [turn_id] * doubted


async def test_a_doubt_outlives_an_attempt_that_is_known_to_have_failed(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn_id = await submit_and_answer(ledger)
    await ledger.turns.begin(await claim_lane(ledger), turn_id)  # paused here, it adds much later
    for _ in range(2):
        inspector.make_due(lane_of())
        held = await claim_lane(ledger)
        await ledger.turns.begin(held, turn_id)
        await postpone(ledger, held, turn_id)
    inspector.make_due(lane_of())
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)

    await ledger.turns.settle(held, turn_id, TurnState.STORED)

    assert inspector.repairs() == [turn_id]
