"""A batch in the ledger: its turns take every step together."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, IllegalStep
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.lifecycle import TurnState
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    replay_one,
    submit_and_answer,
)

pytestmark = pytest.mark.redis


async def begun(ledger: Ledger, count: int = 3) -> tuple[LaneClaim, list[str]]:
    """Begin a batch of so many turns."""
    ids = [await submit_and_answer(ledger, f"fact {n}") for n in range(count)]
    held = await claim_lane(ledger)
    assert await ledger.turns.begin(held, *ids) is False
    return held, ids


async def again(ledger: Ledger, inspector: LedgerInspector) -> LaneClaim:
    """Claim the lane again, whoever held it."""
    inspector.make_due(lane_of())
    return await claim_lane(ledger)


async def postpone(ledger: Ledger, held: LaneClaim, first: str, *, unknown: bool = False) -> None:
    for _ in range(2):
        await ledger.turns.postpone(held, first, 5, counted=True, code="x", unknown_outcome=unknown)


async def take_apart(ledger: Ledger, held: LaneClaim, first: str, *, unknown: bool = False) -> None:
    for _ in range(2):
        await ledger.turns.split_batch(held, first, 5, code="x", unknown_outcome=unknown)


def turns(inspector: LedgerInspector, ids: list[str]) -> set[str]:
    return {inspector.job(name)["turn"] for name in ids}


async def test_all_turns_of_a_batch_begin_and_settle_together(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held, ids = await begun(ledger)
    assert turns(inspector, ids) == {"writing"}

    for _ in range(2):
        await ledger.turns.settle(held, ids[0], TurnState.STORED, memory_ids=["m"])

    assert turns(inspector, ids) == {"stored"}
    assert {inspector.job(name)["memory_ids"] for name in ids} == {'["m"]'}
    assert inspector.lane(lane_of()) == []
    assert inspector.counts() == {"job:succeeded:default": 3, "turn:stored:default": 3}
    assert all(0 < inspector.redis.pttl(inspector.keys.job(name)) <= 86_400_000 for name in ids)


async def test_a_turn_behind_a_batch_that_is_settled_stays(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held, ids = await begun(ledger)
    last = await submit_and_answer(ledger)

    await ledger.turns.settle(held, ids[0], TurnState.NOTHING)
    await ledger.turns.release_lane(held)

    assert inspector.lane(lane_of()) == [last]
    assert [turn.batch for turn in (await claim_lane(ledger)).turns] == [()]


@pytest.mark.parametrize("unknown", [False, True])
async def test_after_a_failure_the_same_turns_are_the_batch(
    ledger: Ledger, inspector: LedgerInspector, unknown: bool
) -> None:
    held, ids = await begun(ledger)
    await ledger.turns.record_event(held, ids[0], "event-1")
    await ledger.turns.record_facts(held, ids[0], "she likes tea")
    await postpone(ledger, held, ids[0], unknown=unknown)
    await submit_and_answer(ledger, "one more")

    held = await again(ledger, inspector)

    first, *others = held.turns
    assert [turn.id for turn in held.turns][:3] == ids
    assert (first.batch, first.attempts, first.facts) == (tuple(ids), 1, "she likes tea")
    assert first.event_id == ("event-1" if unknown else None)
    assert [turn.batch for turn in others] == [(), (), ()]
    assert await ledger.turns.begin(held, *ids) is unknown


async def test_after_a_crash_the_same_turns_are_the_batch_and_may_be_stored(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    _, ids = await begun(ledger)

    held = await again(ledger, inspector)

    assert held.turns[0].batch == tuple(ids)
    assert await ledger.turns.begin(held, *ids) is True
    await ledger.turns.settle(held, ids[0], TurnState.STORED)
    assert inspector.repairs() == ids[:1]


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_batch_cannot_be_begun_with_other_turns(
    ledger: Ledger, inspector: LedgerInspector, count: int
) -> None:
    _, ids = await begun(ledger)
    ids.append(await submit_and_answer(ledger))
    held = await again(ledger, inspector)

    with pytest.raises(IllegalStep):
        await ledger.turns.begin(held, *ids[:count])

    assert int(inspector.job(ids[0])["turn_attempts"]) == 1


async def test_a_batch_comes_whole_however_few_turns_are_asked_for(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    _, ids = await begun(ledger)
    inspector.make_due(lane_of())

    held = await claim_lane(ledger, max_turns=1)

    assert [turn.id for turn in held.turns] == ids


async def test_a_batch_stays_together_when_a_dead_letter_comes_back_in_its_middle(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, dead, last = [await submit_and_answer(ledger, f"fact {n}") for n in range(3)]
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, dead)
    await ledger.turns.bury(held, dead, "rejected", Fault.REQUEST, "v")
    await ledger.turns.begin(held, first, last)
    await postpone(ledger, held, first, unknown=True)
    await replay_one(ledger, dead)

    held = await again(ledger, inspector)

    assert inspector.lane(lane_of()) == [first, dead, last]
    assert [turn.id for turn in held.turns] == [first, last, dead]


@pytest.mark.parametrize("unknown", [False, True])
async def test_taken_apart_each_turn_is_a_batch_of_its_own_with_all_attempts_before_it(
    ledger: Ledger, inspector: LedgerInspector, unknown: bool
) -> None:
    held, ids = await begun(ledger)
    await ledger.turns.record_event(held, ids[0], "event-1")
    await ledger.turns.record_facts(held, ids[0], "she likes tea")

    await take_apart(ledger, held, ids[0], unknown=unknown)

    assert turns(inspector, ids) == {"pending"}
    held = await again(ledger, inspector)
    assert [turn.batch for turn in held.turns] == [(name,) for name in ids]
    assert {(turn.attempts, turn.event_id, turn.facts) for turn in held.turns} == {(0, None, "")}
    for name in ids:
        assert await ledger.turns.begin(held, name) is False
        await ledger.turns.settle(held, name, TurnState.STORED)
    assert inspector.repairs() == ids[:1] * unknown, "what the batch may have left is looked for"


async def test_of_a_batch_taken_apart_one_can_be_buried_and_the_others_go_on(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held, ids = await begun(ledger)
    await take_apart(ledger, held, ids[0])
    held = await again(ledger, inspector)

    await ledger.turns.begin(held, ids[0])
    await ledger.turns.bury(held, ids[0], "rejected", Fault.REQUEST, "v")
    await ledger.turns.begin(held, ids[1])
    await ledger.turns.settle(held, ids[1], TurnState.STORED)

    assert [inspector.job(name)["turn"] for name in ids] == ["dead", "stored", "pending"]
    assert inspector.lane(lane_of()) == ids[2:]


async def test_a_repair_sets_the_record_of_all_turns_right(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held, ids = await begun(ledger)
    await ledger.turns.settle(held, ids[0], TurnState.STORED, memory_ids=["m1", "m2"])
    inspector.redis.delete(inspector.keys.job(ids[2]))

    await ledger.duplicate_checks.finish(ids[0], ["m1"])

    assert [inspector.job(name).get("memory_ids") for name in ids] == ['["m1"]', '["m1"]', None]


async def test_a_batch_with_a_turn_of_a_newer_version_is_held_as_a_whole(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    _, ids = await begun(ledger)
    inspector.redis.hset(inspector.keys.job(ids[1]), "version", RECORD_VERSION + 1)
    inspector.make_due(lane_of())

    assert await ledger.turns.claim_lane(lane_of(), "t", max_turns=5) is None
    assert inspector.places(lane_of()) == [("waiting", "memories.0")]


async def hold(
    ledger: Ledger, held: LaneClaim, first: str, delay_s: float = 5, code: str = "quota_used_up"
) -> None:
    """Put a batch back because the model's rate limit had no room for it."""
    for _ in range(2):
        await ledger.turns.postpone(
            held, first, delay_s, counted=False, code=code, unknown_outcome=False
        )


async def test_a_batch_that_only_waited_for_room_takes_in_what_came_meanwhile(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held, ids = await begun(ledger)
    await hold(ledger, held, ids[0])
    ids.append(await submit_and_answer(ledger))

    claim = await again(ledger, inspector)
    assert [turn.batch for turn in claim.turns] == [()] * 4
    assert await ledger.turns.begin(claim, *ids) is False
    assert [(turn.attempts, turn.snoozes) for turn in claim.turns[:1]] == [(0, 0)]


@pytest.mark.parametrize("why", ["failed", "noted", "split", "crashed"])
async def test_a_batch_of_which_more_is_known_keeps_its_turns_when_it_waits_for_room(
    ledger: Ledger, inspector: LedgerInspector, why: str
) -> None:
    held, ids = await begun(ledger, 2)
    if why == "noted":
        await ledger.turns.record_facts(held, ids[0], "{}")
    elif why == "split":
        await take_apart(ledger, held, ids[0])
    elif why == "failed":
        await ledger.turns.postpone(held, ids[0], 5, counted=False, code="x", unknown_outcome=False)
    if why != "noted":
        held = await again(ledger, inspector)
        begun_anew = ids[:1] if why == "split" else ids
        assert await ledger.turns.begin(held, *begun_anew) is (why == "crashed")
    await hold(ledger, held, ids[0])

    kept = (ids[0],) if why == "split" else tuple(ids)
    assert (await again(ledger, inspector)).turns[0].batch == kept


async def test_the_next_lanes_that_wait_for_room_are_woken_and_no_others(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    codes = ["quota_used_up"] * 2 + ["overloaded"] + ["quota_used_up"] * 3
    for place, code in enumerate(codes):
        first = await submit_and_answer(ledger, user_id=f"u{place}")
        held = await claim_lane(ledger, lane_of(f"u{place}"))
        await ledger.turns.begin(held, first)
        await hold(ledger, held, first, 3600 + 100 * place, code)
    inspector.drop_hints()

    assert await ledger.turns.wake_next(lane_of("u0")) == 1
    assert inspector.hinted("memories.0") == [lane_of("u1")]
    assert inspector.waits_s(lane_of("u2")) > 30
    assert await ledger.turns.wake_next(lane_of("u0")) == 1
    assert inspector.hinted("memories.0") == [lane_of("u1"), lane_of("u3")]
