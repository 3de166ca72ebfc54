"""Claiming a job: one worker at a time, with a growing fence, within its attempts and deadline."""

from __future__ import annotations

import asyncio

import pytest

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from afterword.shared.trace_context import context_of
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

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_claim_contains_everything_a_reply_needs(ledger: Ledger) -> None:
    claimed = await submit_and_claim(ledger, "what do I like?")

    assert (claimed.attempt, claimed.snoozes) == (1, 0)
    assert claimed.lane == lane_of()
    assert claimed.remembered
    assert claimed.created_ms <= claimed.claimed_ms < claimed.deadline_ms
    assert "what do I like?" in claimed.body


async def test_asking_again_with_the_same_token_is_granted_once(ledger: Ledger) -> None:
    job_id = await submit_job(ledger)

    first = await ledger.jobs.claim(job_id, "token")
    again = await ledger.jobs.claim(job_id, "token")

    assert first is not None
    assert again is not None
    assert (again.fence, again.attempt) == (first.fence, first.attempt)


async def test_of_many_concurrent_claims_one_succeeds(ledger: Ledger) -> None:
    job_id = await submit_job(ledger)

    claims = await asyncio.gather(*(ledger.jobs.claim(job_id, f"t{n}") for n in range(20)))

    assert sum(one is not None for one in claims) == 1


async def test_a_leased_job_is_refused_and_a_lapsed_one_taken_over(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_and_claim(ledger)
    assert await ledger.jobs.claim(first.job_id, "other") is None

    inspector.make_due(first.job_id)
    second = await claim_job(ledger, first.job_id)

    assert int(second.fence) > int(first.fence)
    assert second.attempt == 2
    assert [row["type"] for row in inspector.events(first.job_id)] == ["started", "restart"]


async def test_a_worker_that_lost_its_lease_can_change_nothing(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    old = await submit_and_claim(ledger)
    inspector.make_due(old.job_id)
    new = await claim_job(ledger, old.job_id)

    for late in (
        ledger.jobs.append_delta(old, 1, "late"),
        ledger.jobs.finish(old, reply_to(old)),
        ledger.jobs.fail(old, "late"),
        ledger.jobs.snooze(old, 0, counted=True),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert await ledger.jobs.renew_leases([(old.job_id, old.fence)]) == [old.job_id]
    await ledger.jobs.finish(new, reply_to(new))


async def test_renewing_keeps_the_lease(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)
    inspector.pass_time(29)
    assert await ledger.jobs.renew_leases([(held.job_id, held.fence)]) == []
    inspector.pass_time(29)

    assert await ledger.jobs.claim(held.job_id, "other") is None


async def test_a_job_that_kills_its_workers_fails(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    for attempt in (1, 2, 3):
        assert (await claim_job(ledger, job_id)).attempt == attempt
        inspector.make_due(job_id)

    assert await ledger.jobs.claim(job_id, "fourth") is None

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.FAILED, "crashed_too_often")
    assert status.turn is TurnState.NONE
    assert inspector.places(job_id) == []


async def test_a_snooze_spends_no_attempt_and_a_retry_does(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger)
    await ledger.jobs.snooze(held, 0, counted=False, code="overloaded")
    held = await claim_job(ledger, held.job_id)
    assert (held.attempt, held.snoozes) == (1, 1)

    await ledger.jobs.snooze(held, 0, counted=True, code="cut_short")
    assert (await claim_job(ledger, held.job_id)).attempt == 2


async def test_pauses_grow_with_tries_and_not_with_waits(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger)
    for tried in (False, True, False):
        await ledger.jobs.snooze(held, 0, counted=False, tried=tried, code="overloaded")
        held = await claim_job(ledger, held.job_id)
    assert (held.attempt, held.snoozes) == (1, 1)


async def test_a_snoozed_job_waits_its_time(ledger: Ledger, inspector: LedgerInspector) -> None:
    held = await submit_and_claim(ledger)
    inspector.pop_hint("replies.3")

    await ledger.jobs.snooze(held, 60, counted=False)

    assert inspector.places(held.job_id) == [("waiting", "replies.3")]
    assert inspector.hinted("replies.3") == []
    assert (await ledger.maintenance.sweep()).woken == 0
    inspector.pass_time(61)
    assert (await ledger.maintenance.sweep()).woken == 1
    assert inspector.hinted("replies.3") == [held.job_id]


async def test_a_job_past_its_deadline_expires_instead(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger, expires_in=10)
    inspector.pass_time(11)

    assert await ledger.jobs.claim(job_id, "late") is None

    status = await ledger.queries.status(job_id)
    assert (status.state, status.code) == (JobState.EXPIRED, "deadline")


async def test_a_job_that_is_gone_or_ended_is_not_claimed(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    ended = await submit_and_answer(ledger)
    assert await ledger.jobs.claim(ended, "token") is None

    gone = await submit_job(ledger)
    inspector.redis.delete(inspector.keys.job(gone))
    assert await ledger.jobs.claim(gone, "token") is None


async def test_a_record_of_a_newer_version_is_held_untouched(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    inspector.redis.hset(inspector.keys.job(job_id), "version", RECORD_VERSION + 1)
    before = inspector.job(job_id)

    assert await ledger.jobs.claim(job_id, "old worker") is None

    assert inspector.job(job_id) == before
    assert inspector.events(job_id) == []
    assert inspector.places(job_id) == [("waiting", "replies.3")]


async def test_an_older_worker_does_not_take_a_job_from_a_newer_one(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger)
    inspector.redis.hset(inspector.keys.job(held.job_id), "version", RECORD_VERSION + 1)

    assert await ledger.jobs.claim(held.job_id, "old worker") is None

    assert inspector.places(held.job_id) == [("leased", "replies.3")]


async def test_the_overlay_holds_earlier_turns_that_are_not_yet_in_memory(
    ledger: Ledger,
) -> None:
    for message in ("one", "two"):
        await submit_and_answer(ledger, message)
    await submit_and_answer(ledger, "of someone else", user_id="bob")
    await submit_job(ledger, "not answered yet")

    claimed = await submit_and_claim(ledger, "three")

    assert [turn.user_text for turn in claimed.overlay] == ["one", "two"]
    assert {turn.reply_text for turn in claimed.overlay} == {"hi there"}


async def test_the_overlay_never_looks_ahead(ledger: Ledger) -> None:
    first = await submit_job(ledger, "first")
    await submit_and_answer(ledger, "later")

    assert (await claim_job(ledger, first)).overlay == ()


async def test_the_overlay_keeps_the_newest(settings: Settings) -> None:
    async with Ledger(settings.model_copy(update={"overlay_turns": 2}), patience_s=5.0) as ledger:
        for message in ("one", "two", "three"):
            await submit_and_answer(ledger, message)

        claimed = await submit_and_claim(ledger, "four")

    assert [turn.user_text for turn in claimed.overlay] == ["two", "three"]


async def test_history_is_of_the_conversation_and_bounded(settings: Settings) -> None:
    async with Ledger(settings.model_copy(update={"history_turns": 2}), patience_s=5.0) as ledger:
        for message in ("one", "two", "three"):
            await submit_and_answer(ledger, message, conversation_id="c1")
        await submit_and_answer(ledger, "elsewhere", conversation_id="c2")
        await submit_and_answer(
            ledger, "same name, someone else's", conversation_id="c1", user_id="bob"
        )

        claimed = await submit_and_claim(ledger, "four", conversation_id="c1")
        apart = await submit_and_claim(ledger, "no conversation")

    assert [turn.user_text for turn in claimed.history] == ["two", "three"]
    assert apart.history == ()


async def test_a_claim_names_the_trace_of_the_caller_and_the_attempt_before(
    ledger: Ledger,
) -> None:
    trace = context_of({"traceparent": PARENT, "tracestate": "a=1"})
    first = await submit_and_claim(ledger, trace_context=trace)
    again = await ledger.jobs.claim(first.job_id, "first")
    await ledger.jobs.snooze(first, 0, counted=False)
    second = await claim_job(ledger, first.job_id)

    assert first.trace == second.trace == f"{PARENT} a=1"
    assert (first.previous, second.previous) == ("", first.fence)
    assert again is None or again.previous == ""


async def test_a_job_of_an_older_producer_has_no_trace(ledger: Ledger) -> None:
    claimed = await submit_and_claim(ledger)
    assert (claimed.trace, claimed.previous) == ("", "")


async def test_the_trace_goes_on_to_the_turn(ledger: Ledger) -> None:
    trace = context_of({"traceparent": PARENT})
    job_id = await submit_and_answer(ledger, trace_context=trace)
    plain = await submit_and_answer(ledger)

    lane = await claim_lane(ledger)

    assert [(turn.id, turn.trace) for turn in lane.turns] == [(job_id, PARENT), (plain, "")]
