"""Records of a newer version: a build that does not know it holds them for one that does."""

from __future__ import annotations

import asyncio
import json

import pytest

from afterword.producer import AsyncJob
from afterword.producer.admin.fleet_status import summary
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import ConversationBusy, Fault, LeaseLost, NewerRecord
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.maintenance import SWEEP_LIMIT
from afterword.shared.ledger.records import EraseClaim, SweepCounts
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

NEWER = RECORD_VERSION + 1
HOLD_S, LISTED_S, PAST_LEASE_S = 61.0, 301.0, 31.0


def age(inspector: LedgerInspector, *job_ids: str) -> None:
    """Mark these as written by a newer version."""
    for job_id in job_ids:
        inspector.redis.hset(inspector.keys.job(job_id), "version", NEWER)


def renew(inspector: LedgerInspector, job_id: str) -> None:
    """Mark this as of a version that the next worker knows."""
    inspector.redis.hset(inspector.keys.job(job_id), "version", RECORD_VERSION)


async def test_an_overdue_one_does_not_expire_and_keeps_its_deadline(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger, expires_in=10)
    age(inspector, job_id)
    inspector.pass_time(11)
    before = inspector.job(job_id)

    assert (await ledger.maintenance.sweep()).expired == 0
    assert inspector.job(job_id) == before
    assert (await ledger.maintenance.sweep()).expired == 0

    renew(inspector, job_id)
    inspector.pass_time(HOLD_S)
    assert (await ledger.maintenance.sweep()).expired == 1


async def test_newer_records_do_not_stop_the_sweep(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    many = (submit_job(ledger, user_id=f"u{n}", expires_in=5) for n in range(SWEEP_LIMIT + 5))
    age(inspector, *await asyncio.gather(*many))
    mine = await submit_job(ledger, user_id="bob", expires_in=10)
    inspector.pass_time(11)

    swept = [await ledger.maintenance.sweep(), await ledger.maintenance.sweep()]

    assert sum(one.expired for one in swept) == 1
    assert (await ledger.queries.status(mine)).state is JobState.EXPIRED


async def test_a_lapsed_lease_is_left_to_a_worker_that_knows_it(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await submit_and_claim(ledger)
    age(inspector, old.job_id)
    inspector.pass_time(PAST_LEASE_S)
    before = inspector.job(old.job_id)

    await ledger.maintenance.sweep()

    assert inspector.job(old.job_id) == before
    assert 0 < inspector.waits_s(old.job_id) <= HOLD_S
    assert await ledger.jobs.claim(old.job_id, "old worker") is None
    assert inspector.job(old.job_id) == before
    renew(inspector, old.job_id)
    inspector.drop_hints()
    inspector.pass_time(HOLD_S)
    await ledger.maintenance.sweep()
    again = await claim_job(ledger, inspector.pop_hint("replies.3"))
    await ledger.jobs.finish(again, reply_to(again))
    assert inspector.counts() == {"job:succeeded:default": 1, "turn:pending:default": 1}
    with pytest.raises(LeaseLost):
        await ledger.jobs.finish(old, reply_to(old))


async def test_a_running_job_is_not_touched(ledger: Ledger, inspector: LedgerInspector) -> None:
    running = await submit_and_claim(ledger)
    age(inspector, running.job_id)

    assert await ledger.jobs.claim(running.job_id, "old worker") is None

    assert inspector.places(running.job_id) == [("leased", "replies.3")]


async def test_a_record_that_an_older_worker_could_not_claim_is_held_again(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await submit_and_claim(ledger)
    age(inspector, old.job_id)
    for seconds in (PAST_LEASE_S, HOLD_S):
        inspector.pass_time(seconds)
        await ledger.maintenance.sweep()
    assert inspector.places(old.job_id) == [("hinted", "replies.3")]

    await ledger.jobs.claim(old.job_id, "old worker")

    assert 0 < inspector.waits_s(old.job_id) <= HOLD_S


async def test_cancelling_a_newer_job_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    age(inspector, job_id)

    with pytest.raises(NewerRecord, match=job_id):
        await ledger.jobs.cancel(job_id)

    assert inspector.job(job_id)["state"] == "queued"


async def test_the_status_and_reply_of_a_newer_record_are_read(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_and_answer(ledger)
    age(inspector, job_id)

    progress, reply = await ledger.queries.progress_and_reply(job_id)

    assert progress.state is (await ledger.queries.status(job_id)).state is JobState.SUCCEEDED
    assert reply == await ledger.queries.reply(job_id)
    assert reply is not None


async def test_reading_an_unknown_state_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_and_answer(ledger)
    age(inspector, job_id)
    inspector.redis.hset(inspector.keys.job(job_id), "state", "pondered")
    job = AsyncJob(LedgerJobService(CheckedLedger(ledger)), job_id)

    for read in (job.status(), job.wait(), ledger.queries.progress_and_reply(job_id)):
        with pytest.raises(NewerRecord) as refused:
            await read
        assert refused.value.job_id == job_id


async def test_an_unknown_state_of_the_turn_hides_the_status_and_no_reply(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_and_answer(ledger)
    age(inspector, job_id)
    inspector.redis.hset(inspector.keys.job(job_id), "turn", "pondered")
    job = AsyncJob(LedgerJobService(CheckedLedger(ledger)), job_id)

    with pytest.raises(NewerRecord, match=job_id):
        await job.status()
    assert (await job.wait()).job_id == job_id


async def test_unknown_fields_of_a_newer_reply_or_event_are_ignored(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_and_answer(ledger)
    known = await ledger.queries.reply(job_id)
    more = json.loads(inspector.job(job_id)["reply"])
    more |= {"mood": "canary", "usage": more["usage"] | {"thought": 7}}
    inspector.redis.hset(inspector.keys.job(job_id), "reply", json.dumps(more))
    inspector.redis.xadd(
        inspector.keys.events(job_id), {"type": "delta", "text": "x", "mood": "canary"}
    )

    assert await ledger.queries.reply(job_id) == known
    assert (await ledger.queries.progress_and_reply(job_id))[1] == known
    events = await ledger.queries.events(job_id, None)
    assert [event.reply for event in events if event.type == "final"] == [known]
    assert events[-1].text == "x"


async def test_reading_an_unknown_form_of_reply_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_and_answer(ledger)
    age(inspector, job_id)
    reply = json.loads(inspector.job(job_id)["reply"]) | {"text": ["canary"], "mood": "canary"}
    inspector.redis.hset(inspector.keys.job(job_id), "reply", json.dumps(reply))

    reading = ledger.queries
    for read in (
        reading.reply(job_id),
        reading.progress_and_reply(job_id),
        reading.events(job_id, None),
    ):
        with pytest.raises(NewerRecord, match=job_id) as refused:
            await read
        assert "canary" not in str(refused.value)


async def test_reading_an_unknown_event_is_refused(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = (await submit_and_claim(ledger)).job_id
    inspector.redis.xadd(inspector.keys.events(job_id), {"type": "pondering"})

    with pytest.raises(NewerRecord, match=job_id):
        await ledger.queries.events(job_id, None)


async def test_interrupting_a_newer_job_is_refused_and_ends_nothing(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = [await submit_job(ledger, conversation_id="c") for _ in range(2)]
    age(inspector, first)

    with pytest.raises(ConversationBusy):
        await submit_job(ledger, conversation_id="c", when_busy="interrupt")

    assert [inspector.job(name)["state"] for name in (first, second)] == ["queued", "queued"]


async def test_one_in_a_state_that_nobody_knows_keeps_its_place_in_line(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = [await submit_job(ledger, conversation_id="c") for _ in range(2)]
    age(inspector, first)
    inspector.redis.hset(inspector.keys.job(first), "state", "pondered")

    assert await ledger.jobs.claim(second, "old worker") is None
    assert await ledger.jobs.claim(first, "old worker") is None

    assert 0 < inspector.waits_s(first) <= HOLD_S


async def test_a_turn_is_not_looked_at_for_doubles(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    await ledger.turns.begin(await claim_lane(ledger), turn)
    inspector.make_due(lane_of())
    held = await claim_lane(ledger)
    assert await ledger.turns.begin(held, turn)
    await ledger.turns.settle(held, turn, TurnState.STORED, memory_ids=["m"])
    inspector.make_repairs_due()
    age(inspector, turn)

    assert await ledger.duplicate_checks.due() == []
    renew(inspector, turn)
    inspector.make_repairs_due()
    assert [repair.turn_id for repair in await ledger.duplicate_checks.due()] == [turn]


async def test_an_erasure_is_left_to_a_worker_that_knows_them(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    age(inspector, turn)
    before = inspector.job(turn)
    await ledger.erasures.begin(lane_of(), "an operator")
    mine = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=20)
    assert isinstance(mine, EraseClaim)

    with pytest.raises(LeaseLost):
        await ledger.erasures.remove_records(mine)

    assert inspector.job(turn) == before
    assert 0 < inspector.waits_s(lane_of()) <= HOLD_S
    renew(inspector, turn)
    theirs = await ledger.turns.claim_lane(lane_of(), "newer", max_turns=20)
    assert isinstance(theirs, EraseClaim)
    await ledger.erasures.remove_records(theirs)
    assert "reply" not in inspector.job(turn)


async def test_held_records_are_listed_until_they_are_processed(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    assert summary(await ledger.maintenance.overview())["held"] == {
        "jobs": 0,
        "lanes": 0,
        "newest_version": 0,
    }
    job_id, turn = await submit_job(ledger, user_id="bob"), await submit_and_answer(ledger)
    age(inspector, job_id, turn)
    await ledger.jobs.claim(job_id, "old worker")
    assert await ledger.turns.claim_lane(lane_of(), "old worker", max_turns=20) is None
    held = summary(await ledger.maintenance.overview())["held"]
    assert held == {"jobs": 1, "lanes": 1, "newest_version": NEWER}, "at the first look"
    for one in (job_id, turn):
        waits_for = (await ledger.queries.details(one))["waits_for"]
        assert waits_for == f"a worker that knows record version {NEWER}"
    inspector.pass_time(HOLD_S)
    assert (await ledger.maintenance.sweep()) == SweepCounts(woken=2)

    held = summary(await ledger.maintenance.overview())["held"]
    assert held == {"jobs": 1, "lanes": 1, "newest_version": NEWER}

    for agenda in LedgerInspector.AGENDAS:
        for name in inspector.redis.zrange(key := inspector.keys.place("held", agenda), 0, -1):
            inspector.redis.zincrby(key, -LISTED_S * 1000, name)
    held = summary(await ledger.maintenance.overview())["held"]
    assert (held["jobs"], held["lanes"]) == (0, 0)
    await ledger.maintenance.sweep()
    assert not list(inspector.redis.scan_iter(inspector.keys.place("held", "*")))


async def test_a_dead_letter_is_neither_replayed_nor_discarded(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn, failed = await submit_and_answer(ledger), await submit_and_claim(ledger, user_id="bob")
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn)
    await ledger.turns.bury(held, turn, "rejected", Fault.REQUEST, "1")
    await ledger.jobs.fail(failed, "rejected")
    age(inspector, turn, failed.job_id)
    before = [inspector.job(name) for name in (turn, failed.job_id)]
    letters = [letter async for letter in ledger.dead_letters.select()]
    assert {letter.id for letter in letters} == {turn, failed.job_id}

    for letter in letters:
        assert await ledger.dead_letters.replay(letter.ref, "run") is ReplayOutcome.REFUSED
        assert not await ledger.dead_letters.discard(letter.ref)

    assert [inspector.job(name) for name in (turn, failed.job_id)] == before
