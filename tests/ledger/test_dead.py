"""Dead letters: everything kept, the lane goes on, and a way back."""

from __future__ import annotations

import pytest

from shared.errors import Blame, IllegalStep, JobNotFound
from shared.ledger import upkeep
from shared.ledger.ledger import Ledger
from shared.lifecycle import TurnState
from tests.standins.book import Book, answer, lane_of, take

pytestmark = pytest.mark.redis


async def bury(ledger: Ledger, *turn_ids: str) -> None:
    """Bury turns of Ann's, oldest first, and let go of her lane."""
    held = await take(ledger)
    for turn_id in turn_ids:
        await ledger.lanes.begin(held, turn_id)
        await ledger.lanes.bury(held, turn_id, "rejected", Blame.THIS, "0.1.0")
    await ledger.lanes.release(held)


async def ids(ledger: Ledger) -> list[str]:
    return [letter.id async for letter in ledger.upkeep.dead_letters()]


async def test_a_dead_letter_keeps_everything_and_says_why(ledger: Ledger) -> None:
    turn_id = await answer(ledger, "I prefer Celsius.")

    await bury(ledger, turn_id)

    letter = await ledger.upkeep.dead_letter(turn_id)
    assert (letter.code, letter.blame, letter.attempts) == ("rejected", "this one's", 1)
    assert (letter.tenant, letter.user_id) == ("default", "ann")
    assert (letter.message, letter.reply) == ("I prefer Celsius.", "hi there")
    assert (letter.worker_version, letter.replays) == ("0.1.0", 0)
    assert letter.buried_at >= letter.at
    assert (await ledger.reading.status(turn_id)).turn is TurnState.DEAD


async def test_burying_twice_buries_once(ledger: Ledger, book: Book) -> None:
    turn_id = await answer(ledger)
    held = await take(ledger)
    await ledger.lanes.begin(held, turn_id)

    for _ in range(2):
        await ledger.lanes.bury(held, turn_id, "rejected", Blame.THIS, "0.1.0")

    assert await ids(ledger) == [turn_id]
    assert book.counts()["turn:dead:default"] == 1


async def test_a_dead_letter_never_expires(ledger: Ledger, book: Book) -> None:
    turn_id = await answer(ledger)

    await bury(ledger, turn_id)

    assert book.redis.pttl(book.keys.job(turn_id)) == -1


async def test_the_lane_goes_on_after_a_burial(ledger: Ledger) -> None:
    poison, next_one = await answer(ledger), await answer(ledger)

    await bury(ledger, poison)

    assert [turn.id for turn in (await take(ledger)).turns] == [next_one]


async def test_dead_letters_are_listed_oldest_first_over_all_pages(
    ledger: Ledger, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_PAGE", 2)
    turns = [await answer(ledger) for _ in range(5)]
    await bury(ledger, *turns)
    book.redis.zadd(book.keys.dead, {turn_id: at for at, turn_id in enumerate(turns)})

    assert await ids(ledger) == turns


async def test_a_replayed_turn_goes_back_to_its_place(ledger: Ledger, book: Book) -> None:
    first, second, third = [await answer(ledger) for _ in range(3)]
    await bury(ledger, first, second)
    book.drop_hints()

    await ledger.upkeep.replay(second)
    await ledger.upkeep.replay(first)

    assert book.lane(lane_of()) == [first, second, third]
    assert await ids(ledger) == []
    assert [turn.id for turn in (await take(ledger)).turns] == [first, second, third]


async def test_a_replayed_turn_starts_over_and_is_counted(ledger: Ledger, book: Book) -> None:
    turn_id = await answer(ledger)
    await bury(ledger, turn_id)
    book.drop_hints()

    await ledger.upkeep.replay(turn_id)

    assert book.hinted("memories.0") == [lane_of()]
    held = await take(ledger)
    assert held.turns[0].attempts == 0
    assert await ledger.lanes.begin(held, turn_id), "it may have been stored before its burial"
    await ledger.lanes.bury(held, turn_id, "rejected", Blame.THIS, "0.1.0")
    assert (await ledger.upkeep.dead_letter(turn_id)).replays == 1


async def test_a_replay_of_what_is_no_dead_letter_is_refused(ledger: Ledger) -> None:
    turn_id = await answer(ledger)
    await bury(ledger, turn_id)
    await ledger.upkeep.replay(turn_id)

    for step in (ledger.upkeep.replay, ledger.upkeep.discard):
        with pytest.raises(IllegalStep):
            await step(turn_id)


async def test_a_discarded_letter_is_skipped_and_may_be_forgotten(
    ledger: Ledger, book: Book
) -> None:
    turn_id = await answer(ledger)
    await bury(ledger, turn_id)

    await ledger.upkeep.discard(turn_id)

    status = await ledger.reading.status(turn_id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "discarded")
    assert await ids(ledger) == []
    assert 0 < book.redis.pttl(book.keys.job(turn_id)) <= 86_400_000


async def test_a_turn_that_never_was_is_not_found(ledger: Ledger) -> None:
    unknown = f"j00_{0:032x}"

    for step in (ledger.upkeep.replay, ledger.upkeep.discard, ledger.upkeep.dead_letter):
        with pytest.raises(JobNotFound):
            await step(unknown)
    with pytest.raises(JobNotFound):
        await ledger.upkeep.dead_letter(await answer(ledger))
