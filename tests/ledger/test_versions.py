"""Records of a newer version: who does not know it holds them, the next who does goes on."""

from __future__ import annotations

import asyncio
import json

import pytest

from afterword.producer import AsyncJob
from afterword.producer.cli.status import summary
from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import ConversationBusy, Fault, LeaseLost, NewerRecord
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.maintenance import SWEEP_LIMIT
from afterword.shared.ledger.records import EraseClaim, Swept
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.ledger.builder import Book, answer, claim, lane_of, reply_to, start, submit, take

pytestmark = pytest.mark.redis

NEWER = RECORD_VERSION + 1
HOLD_S, LISTED_S, PAST_LEASE_S = 61.0, 301.0, 31.0


def age(book: Book, *job_ids: str) -> None:
    """Let a newer version have written these."""
    for job_id in job_ids:
        book.redis.hset(book.keys.job(job_id), "v", NEWER)


def renew(book: Book, job_id: str) -> None:
    """Let whoever comes next know the version of this."""
    book.redis.hset(book.keys.job(job_id), "v", RECORD_VERSION)


async def test_an_overdue_one_does_not_expire_and_keeps_its_deadline(
    ledger: Ledger, book: Book
) -> None:
    job_id = await submit(ledger, expires_in=10)
    age(book, job_id)
    book.pass_time(11)
    before = book.job(job_id)

    assert (await ledger.upkeep.sweep()).expired == 0
    assert book.job(job_id) == before
    assert (await ledger.upkeep.sweep()).expired == 0

    renew(book, job_id)
    book.pass_time(HOLD_S)
    assert (await ledger.upkeep.sweep()).expired == 1


async def test_they_do_not_keep_the_sweep_from_others(ledger: Ledger, book: Book) -> None:
    many = (submit(ledger, user_id=f"u{n}", expires_in=5) for n in range(SWEEP_LIMIT + 5))
    age(book, *await asyncio.gather(*many))
    mine = await submit(ledger, user_id="bob", expires_in=10)
    book.pass_time(11)

    swept = [await ledger.upkeep.sweep(), await ledger.upkeep.sweep()]

    assert sum(one.expired for one in swept) == 1
    assert (await ledger.reading.status(mine)).state is JobState.EXPIRED


async def test_a_lapsed_lease_is_left_to_a_worker_that_knows_it(ledger: Ledger, book: Book) -> None:
    old = await start(ledger)
    age(book, old.job_id)
    book.pass_time(PAST_LEASE_S)
    before = book.job(old.job_id)

    await ledger.upkeep.sweep()

    assert book.job(old.job_id) == before
    assert 0 < book.waits_s(old.job_id) <= HOLD_S
    assert await ledger.jobs.claim(old.job_id, "old worker") is None
    assert book.job(old.job_id) == before
    renew(book, old.job_id)
    book.drop_hints()
    book.pass_time(HOLD_S)
    await ledger.upkeep.sweep()
    again = await claim(ledger, book.pop_hint("replies.3"))
    await ledger.jobs.finish(again, reply_to(again))
    assert book.counts() == {"job:succeeded:default": 1, "turn:pending:default": 1}
    with pytest.raises(LeaseLost):
        await ledger.jobs.finish(old, reply_to(old))


async def test_one_that_is_being_answered_is_not_touched(ledger: Ledger, book: Book) -> None:
    running = await start(ledger)
    age(book, running.job_id)

    assert await ledger.jobs.claim(running.job_id, "old worker") is None

    assert book.places(running.job_id) == [("leased", "replies.3")]


async def test_its_hint_that_was_taken_up_does_not_leave_it_to_nobody(
    ledger: Ledger, book: Book
) -> None:
    old = await start(ledger)
    age(book, old.job_id)
    for seconds in (PAST_LEASE_S, HOLD_S):
        book.pass_time(seconds)
        await ledger.upkeep.sweep()
    assert book.places(old.job_id) == [("hinted", "replies.3")]

    await ledger.jobs.claim(old.job_id, "old worker")

    assert 0 < book.waits_s(old.job_id) <= HOLD_S


async def test_to_cancel_it_is_refused(ledger: Ledger, book: Book) -> None:
    job_id = await submit(ledger)
    age(book, job_id)

    with pytest.raises(NewerRecord, match=job_id):
        await ledger.jobs.cancel(job_id)

    assert book.job(job_id)["state"] == "queued"


async def test_what_is_known_of_it_is_read(ledger: Ledger, book: Book) -> None:
    job_id = await answer(ledger)
    age(book, job_id)

    status, reply = await ledger.reading.outcome(job_id)

    assert status.state is JobState.SUCCEEDED
    assert reply == await ledger.reading.reply(job_id)
    assert reply is not None


@pytest.mark.parametrize("field", ["state", "turn"])
async def test_to_read_a_state_that_nobody_knows_is_refused(
    ledger: Ledger, book: Book, field: str
) -> None:
    job_id = await answer(ledger)
    age(book, job_id)
    book.redis.hset(book.keys.job(job_id), field, "pondered")
    job = AsyncJob(ledger, job_id)

    for read in (job.status(), job.wait(), ledger.reading.outcome(job_id)):
        with pytest.raises(NewerRecord) as refused:
            await read
        assert refused.value.job_id == job_id


async def test_what_a_newer_worker_adds_to_a_reply_or_an_event_is_ignored(
    ledger: Ledger, book: Book
) -> None:
    job_id = await answer(ledger)
    known = await ledger.reading.reply(job_id)
    more = json.loads(book.job(job_id)["reply"])
    more |= {"mood": "canary", "usage": more["usage"] | {"thought": 7}}
    book.redis.hset(book.keys.job(job_id), "reply", json.dumps(more))
    book.redis.xadd(book.keys.events(job_id), {"type": "delta", "text": "x", "mood": "canary"})

    assert await ledger.reading.reply(job_id) == known
    assert (await ledger.reading.outcome(job_id))[1] == known
    events = await ledger.reading.events(job_id, None)
    assert [event.reply for event in events if event.type == "final"] == [known]
    assert events[-1].text == "x"


async def test_to_read_a_reply_that_nobody_knows_is_refused(ledger: Ledger, book: Book) -> None:
    job_id = await answer(ledger)
    age(book, job_id)
    reply = json.loads(book.job(job_id)["reply"]) | {"text": ["canary"], "mood": "canary"}
    book.redis.hset(book.keys.job(job_id), "reply", json.dumps(reply))

    reading = ledger.reading
    for read in (reading.reply(job_id), reading.outcome(job_id), reading.events(job_id, None)):
        with pytest.raises(NewerRecord, match=job_id) as refused:
            await read
        assert "canary" not in str(refused.value)


async def test_to_read_an_event_that_nobody_knows_is_refused(ledger: Ledger, book: Book) -> None:
    job_id = (await start(ledger)).job_id
    book.redis.xadd(book.keys.events(job_id), {"type": "pondering"})

    with pytest.raises(NewerRecord, match=job_id):
        await ledger.reading.events(job_id, None)


async def test_to_interrupt_it_is_refused_and_ends_nothing(ledger: Ledger, book: Book) -> None:
    first, second = [await submit(ledger, conversation_id="c") for _ in range(2)]
    age(book, first)

    with pytest.raises(ConversationBusy):
        await submit(ledger, conversation_id="c", when_busy="interrupt")

    assert [book.job(name)["state"] for name in (first, second)] == ["queued", "queued"]


async def test_one_in_a_state_that_nobody_knows_keeps_its_place_in_line(
    ledger: Ledger, book: Book
) -> None:
    first, second = [await submit(ledger, conversation_id="c") for _ in range(2)]
    age(book, first)
    book.redis.hset(book.keys.job(first), "state", "pondered")

    assert await ledger.jobs.claim(second, "old worker") is None
    assert await ledger.jobs.claim(first, "old worker") is None

    assert 0 < book.waits_s(first) <= HOLD_S


async def test_a_turn_is_not_looked_at_for_doubles(ledger: Ledger, book: Book) -> None:
    turn = await answer(ledger)
    await ledger.lanes.begin(await take(ledger), turn)
    book.make_due(lane_of())
    held = await take(ledger)
    assert await ledger.lanes.begin(held, turn)
    await ledger.lanes.settle(held, turn, TurnState.STORED, memory_ids=["m"])
    book.make_repairs_due()
    age(book, turn)

    assert await ledger.repairs.due() == []
    renew(book, turn)
    book.make_repairs_due()
    assert [repair.turn_id for repair in await ledger.repairs.due()] == [turn]


async def test_an_erasure_is_left_to_a_worker_that_knows_them(ledger: Ledger, book: Book) -> None:
    turn = await answer(ledger)
    age(book, turn)
    before = book.job(turn)
    await ledger.erasures.ask(lane_of(), "an operator")
    mine = await ledger.lanes.claim(lane_of(), "eraser", most_turns=20)
    assert isinstance(mine, EraseClaim)

    with pytest.raises(LeaseLost):
        await ledger.erasures.empty(mine)

    assert book.job(turn) == before
    assert 0 < book.waits_s(lane_of()) <= HOLD_S
    renew(book, turn)
    theirs = await ledger.lanes.claim(lane_of(), "newer", most_turns=20)
    assert isinstance(theirs, EraseClaim)
    await ledger.erasures.empty(theirs)
    assert "reply" not in book.job(turn)


async def test_what_is_held_is_listed_until_it_goes_on(ledger: Ledger, book: Book) -> None:
    assert summary(await ledger.upkeep.overview())["held"] == {
        "jobs": 0,
        "lanes": 0,
        "newest_version": 0,
    }
    job_id, turn = await submit(ledger, user_id="bob"), await answer(ledger)
    age(book, job_id, turn)
    await ledger.jobs.claim(job_id, "old worker")
    assert await ledger.lanes.claim(lane_of(), "old worker", most_turns=20) is None
    held = summary(await ledger.upkeep.overview())["held"]
    assert held == {"jobs": 1, "lanes": 1, "newest_version": NEWER}, "at the first look"
    book.pass_time(HOLD_S)
    assert (await ledger.upkeep.sweep()) == Swept(woken=2)

    held = summary(await ledger.upkeep.overview())["held"]
    assert held == {"jobs": 1, "lanes": 1, "newest_version": NEWER}

    for agenda in Book.AGENDAS:
        for name in book.redis.zrange(key := f"{book.keys.root}:held:{agenda}", 0, -1):
            book.redis.zincrby(key, -LISTED_S * 1000, name)
    held = summary(await ledger.upkeep.overview())["held"]
    assert (held["jobs"], held["lanes"]) == (0, 0)
    await ledger.upkeep.sweep()
    assert not list(book.redis.scan_iter(f"{book.keys.root}:held:*"))


async def test_a_dead_letter_is_neither_replayed_nor_discarded(ledger: Ledger, book: Book) -> None:
    turn, failed = await answer(ledger), await start(ledger, user_id="bob")
    held = await take(ledger)
    await ledger.lanes.begin(held, turn)
    await ledger.lanes.bury(held, turn, "rejected", Fault.REQUEST, "1")
    await ledger.jobs.fail(failed, "rejected")
    age(book, turn, failed.job_id)
    before = [book.job(name) for name in (turn, failed.job_id)]
    letters = [letter async for letter in ledger.dead.letters()]
    assert {letter.id for letter in letters} == {turn, failed.job_id}

    for letter in letters:
        assert await ledger.dead.replay(letter.ref, "run") is ReplayOutcome.REFUSED
        assert not await ledger.dead.discard(letter.ref)

    assert [book.job(name) for name in (turn, failed.job_id)] == before
