"""Message batches in the ledger: a turn waits for one at most, whose answer wakes its lane."""

from __future__ import annotations

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.message_batches import MessageBatches
from afterword.shared.ledger.records import EraseClaim, LaneClaim
from afterword.shared.ledger.turns import LONGEST_WAIT_S
from afterword.shared.lifecycle import TurnState
from tests.kit.ledger.builder import LedgerInspector, claim_lane, lane_of, submit_and_answer

pytestmark = pytest.mark.redis

FACTS = '{"memory": [{"text": "x"}]}'
NAME = "b00_0123456789ab"
LOOK_S = 6000.0


@pytest.fixture
def batches(ledger: Ledger) -> MessageBatches:
    return ledger.message_batches


async def waiting(ledger: Ledger, user: str = "ann", count: int = 1) -> list[str]:
    """Put turns of a user back because they are to go into a message batch; return their ids."""
    ids = [await submit_and_answer(ledger, f"fact {n}", user_id=user) for n in range(count)]
    held = await claim_lane(ledger, lane_of(user))
    await ledger.turns.begin(held, *ids)
    for _ in range(2):
        await ledger.turns.postpone(
            held, ids[0], 300, counted=False, code="message_batch", unknown_outcome=False
        )
    return ids


async def claimed(
    ledger: Ledger, inspector: LedgerInspector, user: str = "ann"
) -> LaneClaim | None:
    inspector.make_due(lane_of(user))
    found = await ledger.turns.claim_lane(lane_of(user), "token", max_turns=20)
    assert not isinstance(found, EraseClaim)
    return found


async def test_a_turn_waits_for_its_message_batch_and_goes_on_with_what_it_answers(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    first, second = await waiting(ledger, count=2)
    for _ in range(2):
        assert await batches.open(NAME, [first], LOOK_S) == [first]
    assert inspector.waits_s(lane_of()) > LONGEST_WAIT_S / 2
    assert await claimed(ledger, inspector) is None
    assert inspector.waits_s(lane_of()) > LONGEST_WAIT_S / 2

    inspector.drop_hints()
    assert await batches.answer(NAME, first, FACTS) == "default"
    assert await batches.answer(NAME, first, "other") is None
    assert inspector.hinted("memories.0") == [lane_of()]

    claim = await claim_lane(ledger)
    oldest = claim.turns[0]
    assert (oldest.facts, oldest.alone, oldest.batch) == (FACTS, False, (first, second))
    assert (oldest.attempts, oldest.snoozes) == (0, 0)
    record = inspector.job(first)
    assert (record["turn_code"], "turn_first_failed" in record) == ("message_batch", False)


async def test_turns_before_one_that_waits_are_stored_and_those_after_it_wait(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    first = await submit_and_answer(ledger, "one")
    second, third = await submit_and_answer(ledger, "two"), await submit_and_answer(ledger, "three")
    await batches.open(NAME, [second], LOOK_S)

    claim = await claim_lane(ledger)
    assert [turn.id for turn in claim.turns] == [first]
    await ledger.turns.begin(claim, first)
    await ledger.turns.settle(claim, first, TurnState.STORED)
    await ledger.turns.release_lane(claim)
    assert await claimed(ledger, inspector) is None
    assert inspector.lane(lane_of()) == [second, third]


async def test_a_turn_is_in_one_batch_only(ledger: Ledger, batches: MessageBatches) -> None:
    (mine,), (other,) = await waiting(ledger), await waiting(ledger, "bob")
    await batches.open(NAME, [mine], LOOK_S)
    another = batches.new_name(0)

    assert await batches.open(another, [mine, other], LOOK_S) == [other]
    assert await batches.open(batches.new_name(0), [mine, other], LOOK_S) == []
    assert {one.name: one.turns for one in await batches.all()} == {NAME: 1, another: 1}


@pytest.mark.parametrize("gone", ["stored", "erasing", "noted"])
async def test_a_turn_that_needs_no_extraction_any_more_is_not_taken(
    ledger: Ledger, batches: MessageBatches, gone: str
) -> None:
    turn = await submit_and_answer(ledger)
    claim = await claim_lane(ledger)
    await ledger.turns.begin(claim, turn)
    if gone == "stored":
        await ledger.turns.settle(claim, turn, TurnState.STORED)
    elif gone == "noted":
        await ledger.turns.record_facts(claim, turn, FACTS)
    else:
        await ledger.erasures.begin(lane_of(), "op")

    assert await batches.open(NAME, [turn], LOOK_S) == []
    assert await batches.all() == []


async def test_an_erasure_waits_for_no_batch_and_nothing_comes_back(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    (turn,) = await waiting(ledger)
    await batches.open(NAME, [turn], LOOK_S)
    await ledger.erasures.begin(lane_of(), "op")
    claim = await ledger.turns.claim_lane(lane_of(), "token", max_turns=20)
    assert isinstance(claim, EraseClaim)
    await ledger.erasures.remove_records(claim)

    assert await batches.answer(NAME, turn, FACTS) is None
    assert inspector.job(turn).keys().isdisjoint({"facts", "message_batch"})


@pytest.mark.parametrize("alone", [True, False])
async def test_turns_without_an_answer_go_on_alone_or_with_the_next_batch(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches, *, alone: bool
) -> None:
    users = [f"u{number}" for number in range(60)]
    turns = [(await waiting(ledger, user))[0] for user in users]
    await batches.open(NAME, turns, LOOK_S)
    await batches.answer(NAME, turns[0], "")
    await batches.close(NAME, alone=alone, delay_s=0 if alone else 3000)

    first = await claim_lane(ledger, lane_of("u0"))
    assert (first.turns[0].alone, first.turns[0].facts) == (True, "")
    if not alone:
        assert 0 < inspector.waits_s(lane_of("u1")) <= 3000
        inspector.make_due(lane_of("u1"))
    claim = await claim_lane(ledger, lane_of("u1"))
    assert claim.turns[0].alone is alone
    assert await batches.all() == []
    await batches.close(NAME, alone=alone)


async def test_a_turn_that_an_operator_buried_is_not_brought_back(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    turn = await submit_and_answer(ledger)
    await batches.open(NAME, [turn], LOOK_S)
    await ledger.dead_letters.bury(turn)
    inspector.drop_hints()

    await batches.answer(NAME, turn, FACTS)
    assert inspector.job(turn).keys().isdisjoint({"facts", "message_batch"})
    assert inspector.hinted("memories.0") == []


async def test_one_caller_at_a_time_is_given_a_batch_that_is_due(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    (turn,) = await waiting(ledger)
    await batches.open(NAME, [turn], LOOK_S)
    (found,) = await batches.claim_due(3000)
    assert (found.claimed, found.provider_id, found.turns, found.not_ours) == (False, "", 1, ())

    await batches.note(NAME, "msgbatch_1", 0.001, ["msgbatch_0"])
    inspector.redis.zadd(inspector.keys.message_batches, {NAME: 0})
    assert [one.claimed for one in await batches.claim_due(3000)] == [True]
    (again,) = await batches.claim_due(3000)
    assert (again.claimed, again.provider_id, again.not_ours) == (
        False,
        "msgbatch_1",
        ("msgbatch_0",),
    )
    assert [one.claimed for one in await batches.all()] == [False]


async def test_a_batch_that_nobody_looks_at_holds_a_turn_up_for_a_day(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    (turn,) = await waiting(ledger)
    await batches.open(NAME, [turn], LOOK_S)
    inspector.redis.hincrby(inspector.keys.message_batch(NAME), "opened", -25 * 3_600_000)
    assert await claimed(ledger, inspector) is None
    inspector.redis.hincrby(inspector.keys.message_batch(NAME), "opened", -3_600_000)
    assert await claimed(ledger, inspector) is not None


async def test_a_batch_that_is_lost_holds_nothing_up(
    ledger: Ledger, inspector: LedgerInspector, batches: MessageBatches
) -> None:
    (turn,) = await waiting(ledger)
    await batches.open(NAME, [turn], LOOK_S)
    inspector.redis.delete(inspector.keys.message_batch(NAME))

    assert await batches.all() == []
    assert await claimed(ledger, inspector) is not None
    await batches.note(NAME, "msgbatch_1", LOOK_S)
    assert await batches.all() == []
