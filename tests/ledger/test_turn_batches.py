"""A batch in the ledger: its turns take every step together, and keep together."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Fault, IllegalStep
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.lifecycle import TurnState
from tests.kit.ledger.builder import Book, answer, lane_of, replay, take

pytestmark = pytest.mark.redis


async def begun(ledger: Ledger, count: int = 3) -> tuple[LaneClaim, list[str]]:
    """Begin a batch of so many turns."""
    ids = [await answer(ledger, f"fact {n}") for n in range(count)]
    held = await take(ledger)
    assert await ledger.lanes.begin(held, *ids) is False
    return held, ids


async def again(ledger: Ledger, book: Book) -> LaneClaim:
    """Take the lane on once more, whoever held it."""
    book.make_due(lane_of())
    return await take(ledger)


async def postpone(ledger: Ledger, held: LaneClaim, first: str, *, unknown: bool = False) -> None:
    for _ in range(2):
        await ledger.lanes.postpone(held, first, 5, counted=True, code="x", unknown_outcome=unknown)


async def take_apart(ledger: Ledger, held: LaneClaim, first: str, *, unknown: bool = False) -> None:
    for _ in range(2):
        await ledger.lanes.take_apart(held, first, 5, code="x", unknown_outcome=unknown)


def turns(book: Book, ids: list[str]) -> set[str]:
    return {book.job(name)["turn"] for name in ids}


async def test_all_turns_of_a_batch_begin_and_settle_together(ledger: Ledger, book: Book) -> None:
    held, ids = await begun(ledger)
    assert turns(book, ids) == {"writing"}

    for _ in range(2):
        await ledger.lanes.settle(held, ids[0], TurnState.STORED, memory_ids=["m"])

    assert turns(book, ids) == {"stored"}
    assert {book.job(name)["memory_ids"] for name in ids} == {'["m"]'}
    assert book.lane(lane_of()) == []
    assert book.counts() == {"job:succeeded:default": 3, "turn:stored:default": 3}
    assert all(0 < book.redis.pttl(book.keys.job(name)) <= 86_400_000 for name in ids)


async def test_a_turn_behind_a_batch_that_is_settled_stays(ledger: Ledger, book: Book) -> None:
    held, ids = await begun(ledger)
    last = await answer(ledger)

    await ledger.lanes.settle(held, ids[0], TurnState.NOTHING)
    await ledger.lanes.release(held)

    assert book.lane(lane_of()) == [last]
    assert [turn.batch for turn in (await take(ledger)).turns] == [()]


@pytest.mark.parametrize("unknown", [False, True])
async def test_after_a_failure_the_same_turns_are_the_batch(
    ledger: Ledger, book: Book, unknown: bool
) -> None:
    held, ids = await begun(ledger)
    await ledger.lanes.note_event(held, ids[0], "event-1")
    await ledger.lanes.note_facts(held, ids[0], "she likes tea")
    await postpone(ledger, held, ids[0], unknown=unknown)
    await answer(ledger, "one more")

    held = await again(ledger, book)

    first, *others = held.turns
    assert [turn.id for turn in held.turns][:3] == ids
    assert (first.batch, first.attempts, first.facts) == (tuple(ids), 1, "she likes tea")
    assert first.event_id == ("event-1" if unknown else None)
    assert [turn.batch for turn in others] == [(), (), ()]
    assert await ledger.lanes.begin(held, *ids) is unknown


async def test_after_a_crash_the_same_turns_are_the_batch_and_may_be_stored(
    ledger: Ledger, book: Book
) -> None:
    _, ids = await begun(ledger)

    held = await again(ledger, book)

    assert held.turns[0].batch == tuple(ids)
    assert await ledger.lanes.begin(held, *ids) is True
    await ledger.lanes.settle(held, ids[0], TurnState.STORED)
    assert book.repairs() == ids[:1]


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_batch_cannot_be_begun_with_other_turns(
    ledger: Ledger, book: Book, count: int
) -> None:
    _, ids = await begun(ledger)
    ids.append(await answer(ledger))
    held = await again(ledger, book)

    with pytest.raises(IllegalStep):
        await ledger.lanes.begin(held, *ids[:count])

    assert int(book.job(ids[0])["t_attempts"]) == 1


async def test_a_batch_comes_whole_however_few_turns_are_asked_for(
    ledger: Ledger, book: Book
) -> None:
    _, ids = await begun(ledger)
    book.make_due(lane_of())

    held = await take(ledger, most_turns=1)

    assert [turn.id for turn in held.turns] == ids


async def test_a_batch_stays_together_when_a_dead_letter_comes_back_in_its_middle(
    ledger: Ledger, book: Book
) -> None:
    first, dead, last = [await answer(ledger, f"fact {n}") for n in range(3)]
    held = await take(ledger)
    await ledger.lanes.begin(held, dead)
    await ledger.lanes.bury(held, dead, "rejected", Fault.REQUEST, "v")
    await ledger.lanes.begin(held, first, last)
    await postpone(ledger, held, first, unknown=True)
    await replay(ledger, dead)

    held = await again(ledger, book)

    assert book.lane(lane_of()) == [first, dead, last]
    assert [turn.id for turn in held.turns] == [first, last, dead]


@pytest.mark.parametrize("unknown", [False, True])
async def test_taken_apart_each_turn_is_a_batch_of_its_own_with_all_attempts_before_it(
    ledger: Ledger, book: Book, unknown: bool
) -> None:
    held, ids = await begun(ledger)
    await ledger.lanes.note_event(held, ids[0], "event-1")
    await ledger.lanes.note_facts(held, ids[0], "she likes tea")

    await take_apart(ledger, held, ids[0], unknown=unknown)

    assert turns(book, ids) == {"pending"}
    held = await again(ledger, book)
    assert [turn.batch for turn in held.turns] == [(name,) for name in ids]
    assert {(turn.attempts, turn.event_id, turn.facts) for turn in held.turns} == {(0, None, "")}
    for name in ids:
        assert await ledger.lanes.begin(held, name) is False
        await ledger.lanes.settle(held, name, TurnState.STORED)
    assert book.repairs() == ids[:1] * unknown, "what the batch may have left is looked for"


async def test_of_a_batch_taken_apart_one_can_be_buried_and_the_others_go_on(
    ledger: Ledger, book: Book
) -> None:
    held, ids = await begun(ledger)
    await take_apart(ledger, held, ids[0])
    held = await again(ledger, book)

    await ledger.lanes.begin(held, ids[0])
    await ledger.lanes.bury(held, ids[0], "rejected", Fault.REQUEST, "v")
    await ledger.lanes.begin(held, ids[1])
    await ledger.lanes.settle(held, ids[1], TurnState.STORED)

    assert [book.job(name)["turn"] for name in ids] == ["dead", "stored", "pending"]
    assert book.lane(lane_of()) == ids[2:]


async def test_a_repair_sets_the_record_of_all_turns_right(ledger: Ledger, book: Book) -> None:
    held, ids = await begun(ledger)
    await ledger.lanes.settle(held, ids[0], TurnState.STORED, memory_ids=["m1", "m2"])
    book.redis.delete(book.keys.job(ids[2]))

    await ledger.repairs.done(ids[0], ["m1"])

    assert [book.job(name).get("memory_ids") for name in ids] == ['["m1"]', '["m1"]', None]


async def test_a_batch_with_a_turn_of_a_newer_version_is_held_as_a_whole(
    ledger: Ledger, book: Book
) -> None:
    _, ids = await begun(ledger)
    book.redis.hset(book.keys.job(ids[1]), "v", RECORD_VERSION + 1)
    book.make_due(lane_of())

    assert await ledger.lanes.claim(lane_of(), "t", most_turns=5) is None
    assert book.places(lane_of()) == [("waiting", "memories.0")]


async def test_what_was_begun_by_one_who_knew_no_batches_stays_alone(
    ledger: Ledger, book: Book
) -> None:
    _, (only,) = await begun(ledger, 1)
    book.redis.hdel(book.keys.job(only), "batch")
    await answer(ledger)

    assert [turn.batch for turn in (await again(ledger, book)).turns] == [(only,), ()]
