"""What an attempt used is counted, however it ends: as far as the provider had told it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

import pytest

from afterword.shared.contracts import Recalled, Usage
from afterword.shared.errors import (
    BadAnswer,
    LeaseLost,
    LedgerUnavailable,
    QueueFull,
    Rejected,
    Unavailable,
)
from afterword.shared.events import LostAttemptCounted, ModelFailed, TokensWithoutReply
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim
from afterword.shared.lifecycle import JobState
from afterword.shared.settings import Settings
from afterword.workers.replies.delta_buffer import DeltaBuffer
from afterword.workers.replies.lost_attempts import LostAttemptCounter
from tests.kit.ledger.builder import LedgerInspector, claim_job, submit_job
from tests.kit.waiting import until
from tests.kit.workers.observed import Observed, observed
from tests.usecase.test_respond import Desk

pytestmark = pytest.mark.redis

#: What ends a job.
End: TypeAlias = Callable[[Ledger, LedgerInspector, str], Awaitable[None]]

TOLD = Usage(input=100, output=7, cache_read=30, cache_write=4)
#: The output is told at the end: of a call that is cut off, that of "half a" is estimated.
CUT = TOLD.model_copy(update={"output": 2})


@pytest.fixture
def desk(settings: Settings, ledger: Ledger) -> Desk:
    return Desk(settings, ledger, None)


async def used(ledger: Ledger, job_id: str) -> Usage:
    """Return what a job has used, which is also what its user and its tenant have."""
    status = await ledger.queries.status(job_id)
    for user in (None, "ann"):
        assert (await ledger.queries.usage("default", user)).usage == status.usage
    return status.usage


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unavailable("stalled"), JobState.QUEUED),
        (BadAnswer("truncated"), JobState.QUEUED),
        (BadAnswer("too_slow"), JobState.QUEUED),
        (Rejected("no_room_for_text"), JobState.FAILED),
    ],
)
async def test_a_failed_attempt_counts_and_so_does_the_next(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector, error: Exception, state: JobState
) -> None:
    assert isinstance(error, (Unavailable, BadAnswer, Rejected))
    desk.model.fails(error, "half a", usage=TOLD)
    desk.model.answers("whole", usage=TOLD)
    job_id = await submit_job(ledger)
    with observed(TokensWithoutReply, ModelFailed) as seen:
        await desk.respond(job_id)
    assert failed_calls(seen) == [CUT]
    assert (await ledger.queries.status(job_id)).state is state
    assert await used(ledger, job_id) == CUT
    assert seen.of(TokensWithoutReply) == [
        TokensWithoutReply(
            input_tokens=100, output_tokens=2, cache_read_tokens=30, cache_write_tokens=4,
            counted=True,
        )
    ]  # fmt: skip
    if state is JobState.FAILED:
        return

    inspector.make_due(job_id)
    await desk.gates.flush()
    await desk.respond(job_id)

    assert await used(ledger, job_id) == CUT + TOLD
    reply = await ledger.queries.reply(job_id)
    assert reply is not None
    assert reply.usage == TOLD
    assert (await ledger.queries.usage("default", None)).replies == 1


async def held_call(desk: Desk, ledger: Ledger) -> tuple[str, asyncio.Task[None]]:
    """Begin to answer a job whose model has told its tokens, and holds."""
    desk.model.answers("half a", usage=TOLD, holds=True)
    job_id = await submit_job(ledger)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    return job_id, work


def failed_calls(seen: Observed) -> list[Usage]:
    """Return what metrics count of calls that failed."""
    return [
        Usage(
            input=one.input_tokens, output=one.output_tokens,
            cache_read=one.cache_read_tokens, cache_write=one.cache_write_tokens,
        )
        for one in seen.of(ModelFailed)
    ]  # fmt: skip


async def test_a_cancelled_job_counts(desk: Desk, ledger: Ledger) -> None:
    job_id, work = await held_call(desk, ledger)
    with observed(ModelFailed) as seen:
        async with ledger.listen_to_fences(desk.leases.lose):
            await ledger.jobs.cancel(job_id)
            await work
    assert await used(ledger, job_id) == CUT
    assert failed_calls(seen) == [CUT]


@pytest.mark.parametrize("error", [LeaseLost("another"), LedgerUnavailable("away")])
async def test_a_call_is_counted_whose_text_cannot_be_published(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def push(*_: object) -> None:
        raise error

    monkeypatch.setattr(DeltaBuffer, "push", push)
    desk.model.answers("half a", usage=TOLD)
    job_id = await submit_job(ledger)
    with observed(ModelFailed) as seen, suppress(type(error)):
        await desk.respond(job_id)
    assert failed_calls(seen) == [await used(ledger, job_id)]


async def test_a_job_of_a_worker_that_stops_counts(desk: Desk, ledger: Ledger) -> None:
    job_id, work = await held_call(desk, ledger)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert (await ledger.queries.status(job_id)).state is JobState.QUEUED
    assert await used(ledger, job_id) == CUT


async def test_an_answer_that_comes_too_late_counts_whole(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id, work = await held_call(desk, ledger)
    inspector.make_due(job_id)
    newer = await claim_job(ledger, job_id)
    desk.model.release()
    await work
    assert await used(ledger, job_id) == TOLD

    await ledger.jobs.count_usage(newer, TOLD)
    assert await used(ledger, job_id) == TOLD + TOLD


async def test_a_model_that_was_replaced_counts(settings: Settings, ledger: Ledger) -> None:
    models = {"model": "first", "fallback_models": ("second",)}
    relay = Desk(settings.model_copy(update=models), ledger, None)
    relay.model.fails(Unavailable("overloaded"), usage=TOLD)
    relay.model.answers("from the second", usage=TOLD)
    job_id = await submit_job(ledger)
    with observed(TokensWithoutReply) as seen:
        await relay.respond(job_id)
    without_text = TOLD.model_copy(update={"output": 0})
    assert await used(ledger, job_id) == without_text + TOLD
    assert seen.of(TokensWithoutReply) == []


@pytest.mark.parametrize(
    "arrange",
    [
        lambda desk: desk.model.answers("whole"),
        lambda desk: desk.model.fails(Unavailable("overloaded")),
    ],
)
async def test_without_tokens_nothing_is_sent_to_redis_for_them(
    desk: Desk,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[Desk], None],
) -> None:
    asked: list[Claim] = []

    async def count_usage(claim: Claim, _: Usage, __: int) -> None:
        asked.append(claim)

    monkeypatch.setattr(ledger.jobs, "count_usage", count_usage)
    arrange(desk)
    await desk.respond(await submit_job(ledger))
    assert asked == []


@pytest.mark.parametrize("swept", [True, False])
async def test_an_attempt_whose_worker_died_counts_an_estimate_with_the_next_one(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, swept: bool
) -> None:
    priced = settings.model_copy(update={"model": "m", "model_prices": {"m": (2.0, 10.0)}})
    desk = Desk(priced, ledger, None)
    desk.model.answers("whole", usage=TOLD)
    job_id = await submit_job(ledger, message="x" * 3000)
    dead = await claim_job(ledger, job_id)
    for number, text in enumerate(("y" * 300, "z" * 30), start=1):
        await ledger.jobs.append_delta(dead, number, text, Recalled(memory="fresh"))
    inspector.make_due(job_id)
    if swept:
        await ledger.maintenance.sweep()

    with observed(LostAttemptCounted) as seen:
        await desk.respond(job_id)

    (lost,) = seen.of(LostAttemptCounted)
    assert (lost.model, lost.output_tokens) == ("m", 110)
    assert 1000 <= lost.input_tokens < 2000
    guessed = Usage(input=lost.input_tokens, output=110)
    assert await used(ledger, job_id) == guessed + TOLD
    spent = (await ledger.queries.usage("default", "ann")).cost_usd
    of_reply = (100 * 2 + 30 * 0.2 + 4 * 2.5 + 7 * 10) / 1e6
    assert spent == pytest.approx(of_reply + (lost.input_tokens * 2 + 110 * 10) / 1e6, abs=2e-6)

    await ledger.jobs.count_usage(dead, TOLD)  # it was not dead after all
    assert await used(ledger, job_id) == guessed + TOLD


async def test_an_attempt_that_was_given_back_or_has_told_is_not_counted_again(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    for _ in range(2):
        desk.model.answers("whole", usage=TOLD)
    given_back, told = [await submit_job(ledger) for _ in range(2)]
    await ledger.jobs.snooze(await claim_job(ledger, given_back), 0, counted=False)
    late = await claim_job(ledger, told)
    inspector.make_due(told)
    await ledger.jobs.count_usage(late, CUT)

    with observed(LostAttemptCounted) as seen:
        await desk.respond(given_back)
    await desk.respond(told)

    assert seen.of(LostAttemptCounted) == []
    assert (await ledger.queries.status(given_back)).usage == TOLD
    assert (await ledger.queries.status(told)).usage == CUT + TOLD


async def count_lost(settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> None:
    """Count lost attempts that ended their jobs, once their workers had the time to tell."""
    inspector.make_all_due(inspector.keys.lost_attempts)
    counter = LostAttemptCounter(settings, ledger.jobs)
    while await counter.count_due(ledger.lost_attempts):
        pass


async def cancel(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await ledger.jobs.cancel(job_id)


async def cancel_taken_back(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.make_due(job_id)
    await ledger.maintenance.sweep()
    await ledger.jobs.cancel(job_id)


async def interrupt(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await submit_job(ledger, conversation_id="c", when_busy="interrupt")


async def expire(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.outlive(job_id)
    await ledger.maintenance.sweep()


async def claim_too_late(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.make_due(job_id)
    inspector.outlive(job_id)
    assert await ledger.jobs.claim(job_id, "late") is None


async def crash_too_often(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.make_due(job_id)
    inspector.redis.hset(inspector.keys.job(job_id), "attempts", 99)
    assert await ledger.jobs.claim(job_id, "once more") is None


@pytest.mark.parametrize(
    "end", [cancel, cancel_taken_back, interrupt, expire, claim_too_late, crash_too_often]
)
async def test_a_lost_attempt_that_no_other_follows_counts_once(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, end: End
) -> None:
    priced = settings.model_copy(update={"model": "m", "model_prices": {"m": (2.0, 10.0)}})
    job_id = await submit_job(ledger, message="x" * 3000, conversation_id="c")
    dead = await claim_job(ledger, job_id)
    await ledger.jobs.append_delta(dead, 1, "y" * 330, Recalled(memory="fresh"))
    await end(ledger, inspector, job_id)
    with observed(LostAttemptCounted) as seen:
        for _ in range(2):
            await count_lost(priced, ledger, inspector)

    (lost,) = seen.of(LostAttemptCounted)
    assert 1000 <= lost.input_tokens < 2000
    assert await used(ledger, job_id) == Usage(input=lost.input_tokens, output=110)
    spent = (await ledger.queries.usage("default", "ann")).cost_usd
    assert spent == pytest.approx((lost.input_tokens * 2 + 110 * 10) / 1e6, abs=2e-6)

    await ledger.jobs.count_usage(dead, TOLD)  # it was not dead after all
    assert (await ledger.queries.status(job_id)).usage.output == 110


BURST = {"conversation_id": "c", "when_busy": "merge"}


@pytest.mark.parametrize("lease_ran_out", [True, False])
async def test_a_lost_attempt_that_a_message_was_joined_to_counts_once(
    desk: Desk,
    settings: Settings,
    ledger: Ledger,
    inspector: LedgerInspector,
    lease_ran_out: bool,
) -> None:
    desk.model.answers("whole", usage=TOLD)
    job_id = await submit_job(ledger, message="x" * 3000, **BURST)
    dead = await claim_job(ledger, job_id)
    if lease_ran_out:
        inspector.make_due(job_id)
    assert await submit_job(ledger, message="and", **BURST) == job_id
    with observed(LostAttemptCounted) as seen:
        await desk.respond(job_id)
        for _ in range(2):
            await count_lost(settings, ledger, inspector)

    (lost,) = seen.of(LostAttemptCounted)
    assert 1000 <= lost.input_tokens < 2000
    assert await used(ledger, job_id) == TOLD + Usage(input=lost.input_tokens)
    reply = await ledger.queries.reply(job_id)
    assert reply is not None
    assert reply.attempts == (2 if lease_ran_out else 1), "an attempt that was lost was spent"

    await ledger.jobs.count_usage(dead, TOLD)  # it was not dead after all
    assert await used(ledger, job_id) == TOLD + Usage(input=lost.input_tokens)


@pytest.mark.parametrize("told", [TOLD, Usage()])
async def test_an_attempt_that_lives_and_that_a_message_is_joined_to_is_not_guessed(
    desk: Desk, settings: Settings, ledger: Ledger, inspector: LedgerInspector, told: Usage
) -> None:
    desk.model.answers(usage=told, holds=True)
    job_id = await submit_job(ledger, **BURST)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    async with ledger.listen_to_fences(desk.leases.hear):
        assert await submit_job(ledger, message="and", **BURST) == job_id
        await work
    with observed(LostAttemptCounted) as seen:
        await count_lost(settings, ledger, inspector)
    assert seen.of(LostAttemptCounted) == []
    assert await used(ledger, job_id) == told.model_copy(update={"output": 0})


async def test_what_was_counted_is_not_counted_again_once_a_later_attempt_was(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    first = await claim_job(ledger, job_id)
    inspector.make_due(job_id)
    second = await claim_job(ledger, job_id)
    for attempt in (first, second, first):
        await ledger.jobs.count_usage(attempt, TOLD)
    assert await used(ledger, job_id) == TOLD + TOLD


@pytest.mark.parametrize("told", [TOLD, Usage()])
async def test_an_attempt_that_lives_and_whose_job_is_cancelled_is_not_guessed(
    desk: Desk, settings: Settings, ledger: Ledger, inspector: LedgerInspector, told: Usage
) -> None:
    desk.model.answers("half a", usage=told, holds=True)
    job_id = await submit_job(ledger)
    work = asyncio.create_task(desk.respond(job_id))
    await until(lambda: desk.model.held, "the model is asked")
    async with ledger.listen_to_fences(desk.leases.lose):
        await ledger.jobs.cancel(job_id)
        await work
    with observed(LostAttemptCounted) as seen:
        await count_lost(settings, ledger, inspector)
    assert seen.of(LostAttemptCounted) == []
    assert await used(ledger, job_id) == (CUT if told == TOLD else told)


async def test_an_attempt_that_gave_up_is_not_lost(
    desk: Desk, ledger: Ledger, inspector: LedgerInspector
) -> None:
    desk.model.fails(Rejected("too_large"))
    job_id = await submit_job(ledger)
    await desk.respond(job_id)
    assert (await ledger.queries.status(job_id)).state is JobState.FAILED
    assert not inspector.redis.exists(inspector.keys.lost_attempts)


@pytest.mark.parametrize("broken", [True, False])
async def test_what_cannot_be_guessed_is_not_looked_at_for_ever(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, broken: bool
) -> None:
    job_id = await submit_job(ledger)
    await claim_job(ledger, job_id)
    await ledger.jobs.cancel(job_id)
    key = inspector.keys.job(job_id)
    inspector.redis.hset(key, "body", "{}") if broken else inspector.redis.hdel(key, "body")
    await count_lost(settings, ledger, inspector)
    assert not inspector.redis.exists(inspector.keys.lost_attempts)
    assert (await ledger.queries.usage("default", None)).usage == Usage()


@pytest.mark.parametrize("error", [LedgerUnavailable("away"), QueueFull("at its maxmemory")])
async def test_tokens_that_redis_did_not_take_are_told(
    desk: Desk, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def count_usage(_: Claim, __: Usage, ___: int) -> None:
        raise error

    monkeypatch.setattr(ledger.jobs, "count_usage", count_usage)
    desk.model.fails(BadAnswer("truncated"), "half a", usage=TOLD)
    job_id = await submit_job(ledger)
    with observed(TokensWithoutReply) as seen:
        await desk.respond(job_id)
    assert [one.counted for one in seen.of(TokensWithoutReply)] == [False]
    assert (await ledger.queries.status(job_id)).attempts == 1
