"""Conversations: messages are answered in the order of submission, however earlier ones end."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer import AsyncJob, AsyncProducer, ConversationBusy, JobFailed
from afterword.shared.contracts import UNANSWERED
from afterword.shared.errors import Fault, KeyReused, LeaseLost, QueueFull
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import EraseClaim, PastTurn, SubmitResult
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    replay_one,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
    submit_request,
)
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

TALK: dict[str, Any] = {"conversation_id": "c"}
AGENDA = "replies.3"


async def runs(ledger: Ledger, job_id: str) -> bool:
    """Claim a job; return whether that succeeded."""
    return await ledger.jobs.claim(job_id, f"token-{job_id}") is not None


async def finish(ledger: Ledger, job_id: str, text: str = "hi there") -> None:
    claimed = await claim_job(ledger, job_id)
    await ledger.jobs.finish(claimed, reply_to(claimed, text))


async def fail(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await ledger.jobs.fail(await claim_job(ledger, job_id), "broken")


async def cancel_queued(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await ledger.jobs.cancel(job_id)


async def cancel_running(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await claim_job(ledger, job_id)
    await ledger.jobs.cancel(job_id)


async def expire_queued(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.outlive(job_id)
    await ledger.maintenance.sweep()


async def expire_running(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    await claim_job(ledger, job_id)
    await expire_queued(ledger, inspector, job_id)


async def expire_when_claimed(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    inspector.outlive(job_id)
    assert not await runs(ledger, job_id)


async def crash_too_often(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    for _ in range(3):
        await claim_job(ledger, job_id)
        inspector.make_due(job_id)
    assert not await runs(ledger, job_id)


async def refuse_to_remember(ledger: Ledger, inspector: LedgerInspector, job_id: str) -> None:
    claimed = await claim_job(ledger, job_id)
    await ledger.jobs.finish(claimed, reply_to(claimed, not_remembered="refusal"))


ENDS = (
    fail, cancel_queued, cancel_running, expire_queued, expire_running, expire_when_claimed,
    crash_too_often, refuse_to_remember,
)  # fmt: skip


async def test_a_later_message_waits_without_a_hint_until_the_earlier_one_has_its_reply(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = await submit_job(ledger, "one", **TALK), await submit_job(ledger, "two", **TALK)
    assert inspector.hinted(AGENDA) == [first]
    assert inspector.places(second) == [("waiting", AGENDA)]

    await finish(ledger, first, "yes")

    assert inspector.hinted(AGENDA) == [first, second]
    assert [turn.reply_text for turn in (await claim_job(ledger, second)).history] == ["yes"]


@pytest.mark.parametrize("earlier", ["queued", "running", "snoozed"])
async def test_no_hint_starts_a_later_message_too_early(
    ledger: Ledger, inspector: LedgerInspector, earlier: str
) -> None:
    first, second = await submit_job(ledger, **TALK), await submit_job(ledger, **TALK)
    if earlier != "queued":
        held = await claim_job(ledger, first)
        if earlier == "snoozed":
            await ledger.jobs.snooze(held, 60, counted=False)

    assert not await runs(ledger, second)
    inspector.make_due(second)
    await ledger.maintenance.sweep()
    assert not await runs(ledger, second)
    assert inspector.waits_s(second) > 60


@pytest.mark.parametrize("end", ENDS)
async def test_any_end_of_the_earlier_message_starts_the_next(
    ledger: Ledger,
    inspector: LedgerInspector,
    end: Callable[[Ledger, LedgerInspector, str], Awaitable[None]],
) -> None:
    first, second, third = [await submit_job(ledger, **TALK) for _ in range(3)]

    await end(ledger, inspector, first)

    assert inspector.hinted(AGENDA)[-1] == second
    assert not await runs(ledger, third)
    await finish(ledger, second)
    await finish(ledger, third)
    assert not list(inspector.redis.scan_iter(inspector.keys.conversation_queue("*")))


async def test_a_message_that_ends_in_the_middle_starts_none(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second, third = [await submit_job(ledger, **TALK) for _ in range(3)]
    held = await claim_job(ledger, first)

    await ledger.jobs.cancel(second)

    assert inspector.places(first) == [("leased", AGENDA)]
    assert not await runs(ledger, third)
    await ledger.jobs.finish(held, reply_to(held))
    assert await runs(ledger, third)


async def test_a_message_that_is_released_keeps_its_place(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = await submit_job(ledger, **TALK), await submit_job(ledger, **TALK)
    for counted in (True, False):
        await ledger.jobs.snooze(await claim_job(ledger, first), 0, counted=counted)
        assert not await runs(ledger, second)
    held = await claim_job(ledger, first)
    inspector.make_due(first)
    await ledger.maintenance.sweep()
    assert not await runs(ledger, second)

    await finish(ledger, first)

    with pytest.raises(LeaseLost):
        await ledger.jobs.fail(held, "late")
    assert await runs(ledger, second)


async def test_conversations_and_users_do_not_wait_for_each_other(ledger: Ledger) -> None:
    await submit_and_claim(ledger, **TALK)
    assert await runs(ledger, await submit_job(ledger, conversation_id="d"))
    assert await runs(ledger, await submit_job(ledger, user_id="bob", **TALK))
    assert await runs(ledger, await submit_job(ledger))


async def test_a_high_priority_does_not_reorder_its_conversation(ledger: Ledger) -> None:
    first = await submit_job(ledger, priority="low", **TALK)
    second = await submit_job(ledger, priority="high", **TALK)
    assert not await runs(ledger, second)
    await finish(ledger, first)
    assert await runs(ledger, second)


@pytest.mark.parametrize("lost", ["line", "record"])
async def test_a_lost_record_does_not_block_its_conversation(
    ledger: Ledger, inspector: LedgerInspector, lost: str
) -> None:
    first, second = await submit_job(ledger, **TALK), await submit_job(ledger, **TALK)
    (line,) = inspector.redis.scan_iter(inspector.keys.conversation_queue("*"))
    inspector.redis.delete(line if lost == "line" else inspector.keys.job(first))

    inspector.make_due(second)
    await ledger.maintenance.sweep()

    assert inspector.places(second) == [("hinted", AGENDA)]
    assert await runs(ledger, second)


# -- reject


async def test_a_message_may_be_refused_while_another_is_open(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_job(ledger, **TALK)
    keys = set(inspector.redis.scan_iter(f"{inspector.keys.root}:*"))
    with pytest.raises(ConversationBusy):
        await submit_job(ledger, when_busy="reject", idempotency_key="k", **TALK)
    assert set(inspector.redis.scan_iter(f"{inspector.keys.root}:*")) == keys

    await finish(ledger, first)

    assert await runs(
        ledger, await submit_job(ledger, when_busy="reject", idempotency_key="k", **TALK)
    )


@pytest.mark.parametrize("when_busy", ["reject", "interrupt"])
async def test_a_message_submitted_again_is_not_busy_with_itself(
    ledger: Ledger, when_busy: str
) -> None:
    asked = chat_request(when_busy=when_busy, idempotency_key="k", **TALK)
    job_id = ledger.jobs.new_id(asked)
    await submit_request(ledger.jobs, job_id, asked)
    held = await claim_job(ledger, job_id)

    again = [
        await submit_request(ledger.jobs, one, asked) for one in (job_id, ledger.jobs.new_id(asked))
    ]

    assert again == [SubmitResult(job_id, new=False)] * 2
    await ledger.jobs.finish(held, reply_to(held))


async def test_the_same_key_with_another_when_busy_is_reused(ledger: Ledger) -> None:
    await submit_job(ledger, idempotency_key="k", **TALK)
    with pytest.raises(KeyReused):
        await submit_job(ledger, idempotency_key="k", when_busy="interrupt", **TALK)


# -- interrupt


async def test_an_interruption_ends_all_that_is_open_and_runs_next(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    fenced: list[str] = []
    answered = await submit_and_answer(ledger, **TALK)
    held = await submit_and_claim(ledger, **TALK)
    waiting = await submit_job(ledger, **TALK)
    async with ledger.listen_to_fences(fenced.append):
        new = await submit_job(ledger, when_busy="interrupt", **TALK)
        await until(lambda: fenced == [held.job_id], "who runs it is told at once")

    for job_id in (held.job_id, waiting):
        status = await ledger.queries.status(job_id)
        assert (status.state, status.code) == (JobState.CANCELLED, "interrupted")
        assert status.turn is TurnState.PENDING, "it was said all the same"
    for late in (
        ledger.jobs.append_delta(held, 1, "late"),
        ledger.jobs.finish(held, reply_to(held)),
        ledger.jobs.snooze(held, 0, counted=False),
    ):
        with pytest.raises(LeaseLost):
            await late
    assert inspector.hinted(AGENDA)[-1] == new
    assert waiting not in inspector.hinted(AGENDA)
    history = (await claim_job(ledger, new)).history
    assert [turn.id for turn in history] == [answered, held.job_id, waiting]
    assert [turn.stop_reason for turn in history] == ["end_turn", UNANSWERED, UNANSWERED]
    assert inspector.lane(lane_of()) == [answered, held.job_id, waiting, new]


#: What a text can hold that a record must not take for its own.
NASTY = (
    'He said "no".',
    "C:\\\\new\\", "two\nlines\ttab", 'x","message":"y', "\\", '\\"', "é 漢 \u2028 🙂",
    '{"message":"nested"}',
)  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("how", [cancel_queued, cancel_running])
async def test_a_message_that_was_stopped_is_kept_to_the_character(
    ledger: Ledger,
    inspector: LedgerInspector,
    how: Callable[[Ledger, LedgerInspector, str], Awaitable[None]],
    text: str,
) -> None:
    talk: dict[str, Any] = {"conversation_id": 'c "message":"x'}
    fields: dict[str, Any] = {"system": text, "metadata": {"message": text, text: [text]}}
    said = datetime(2026, 5, 8, 8, tzinfo=UTC)
    job_id = await submit_job(ledger, text, at=said, **talk, **fields)

    await how(ledger, inspector, job_id)

    held = await submit_and_claim(ledger, **talk)
    assert held.history == (PastTurn(job_id, said, text, "", UNANSWERED),)
    (waiting,) = held.overlay
    assert (waiting.user_text, waiting.reply_text, waiting.at) == (text, "", said)


async def test_a_message_that_is_not_to_be_remembered_stays_in_its_conversation_if_it_is_stopped(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger, "hush", remember=False, **TALK)
    await ledger.jobs.cancel(job_id)

    held = await submit_and_claim(ledger, **TALK)

    assert [turn.user_text for turn in held.history] == ["hush"]
    assert held.overlay == ()
    assert inspector.lane(lane_of()) == [held.job_id]


async def test_the_history_has_the_order_of_submission_whatever_ended_first(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second, third = [await submit_job(ledger, text, **TALK) for text in ("a", "b", "c")]
    held = await claim_job(ledger, first)
    await ledger.jobs.cancel(second)
    await ledger.jobs.finish(held, reply_to(held))
    assert [turn.user_text for turn in (await claim_job(ledger, third)).history] == ["a", "b"]

    (key,) = inspector.redis.scan_iter(inspector.keys.conversation("*"))
    of_version_1 = {"id": "old", "at": 1, "user": "v1", "reply": "x"}
    inspector.redis.rpush(key, json.dumps(of_version_1))
    await ledger.jobs.cancel(third)
    history = (await submit_and_claim(ledger, **TALK)).history
    assert [turn.user_text for turn in history] == ["a", "b", "v1", "c"], "it keeps its place"


async def test_an_interruption_in_slices_keeps_the_newest_in_order(ledger: Ledger) -> None:
    texts = [f"message {number}" for number in range(60)]
    for text in texts:
        await submit_job(ledger, text, **TALK)

    new = await submit_job(ledger, when_busy="interrupt", **TALK)

    history = (await claim_job(ledger, new)).history
    assert [turn.user_text for turn in history] == texts[-len(history) :]
    assert len(history) == 20


async def test_a_stopped_message_can_be_buried_and_replayed(ledger: Ledger) -> None:
    job_id = await submit_job(ledger, "I prefer Celsius.")
    await ledger.jobs.cancel(job_id)
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, job_id)
    await ledger.turns.bury(lane, job_id, "rejected", Fault.REQUEST, "test")
    await ledger.turns.release_lane(lane)

    letter = await ledger.dead_letters.get(job_id)

    assert (letter.message, letter.reply) == ("I prefer Celsius.", None)
    assert await replay_one(ledger, job_id) is ReplayOutcome.WAITING
    assert [turn.user_text for turn in (await claim_lane(ledger)).turns] == ["I prefer Celsius."]


MERGE: dict[str, Any] = TALK | {"when_busy": "merge"}


async def said(ledger: Ledger, job_id: str) -> str:
    """Claim a job; return its message."""
    message: str = json.loads((await claim_job(ledger, job_id)).body)["message"]
    return message


@pytest.mark.parametrize("text", NASTY)
async def test_a_burst_becomes_one_job_in_its_order(
    ledger: Ledger, inspector: LedgerInspector, text: str
) -> None:
    first = await submit_job(ledger, text, metadata={"a": [1.5, {}, []]}, **TALK)
    more = {"metadata": {"a": [1.5, {}, []]}}

    joined = [await submit_job(ledger, again, **more, **MERGE) for again in ("two", text)]

    assert joined == [first, first]
    assert inspector.counts() == {"job:queued:default": 1, "turn:awaited:default": 1}
    assert inspector.open_counts() == inspector.expected_open_counts()
    assert inspector.lane(lane_of()) == [first]
    held = await claim_job(ledger, first)
    assert json.loads(held.body)["message"] == f"{text}\ntwo\n{text}"
    assert json.loads(held.body)["metadata"] == more["metadata"]
    await ledger.jobs.finish(held, reply_to(held))
    (turn,) = (await claim_lane(ledger)).turns
    assert turn.user_text == f"{text}\ntwo\n{text}"


async def test_a_message_joins_one_that_runs_until_its_text_begins(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    fenced: list[str] = []
    held = await submit_and_claim(ledger, "one", **MERGE)
    async with ledger.listen_to_fences(fenced.append):
        assert await submit_job(ledger, "two", **MERGE) == held.job_id
        await until(
            lambda: fenced == [f"{held.job_id} {held.fence}"], "who runs it is told at once"
        )
    with pytest.raises(LeaseLost):
        await ledger.jobs.finish(held, reply_to(held))

    assert inspector.hinted(AGENDA)[-1] == held.job_id
    anew = await claim_job(ledger, held.job_id)
    assert (json.loads(anew.body)["message"], anew.attempt) == ("one\ntwo", 1), (
        "no attempt is spent"
    )
    await ledger.jobs.append_delta(anew, 1, "Hel")
    third = await submit_job(ledger, "three", **MERGE)
    assert third != held.job_id, "its reply has begun"
    assert await submit_job(ledger, "four", **MERGE) == third
    await ledger.jobs.finish(anew, reply_to(anew))
    events = [event["type"] for event in inspector.events(held.job_id)]
    assert events == ["started", "restart", "delta", "final"]
    assert await said(ledger, third) == "three\nfour"
    assert inspector.open_counts() == inspector.expected_open_counts()


@pytest.mark.parametrize(
    "other",
    [
        {"system": "Be brief."},
        {"metadata": {"page": 2}},
        {"remember": False},
        {"priority": "high"},
        {"max_tokens": 5},
        {"expires_in": 60.0},
        {"at": "2026-05-08T08:00:00Z"},
    ],
    ids=str,
)
async def test_only_what_is_the_same_but_for_its_message_is_joined(
    ledger: Ledger, other: dict[str, Any]
) -> None:
    first = await submit_job(ledger, "one", **MERGE)
    second = await submit_job(ledger, "two", **MERGE, **other)
    third = await submit_job(ledger, "three", **MERGE, **other)
    assert second != first
    assert third == second, "order is kept: it joins the newest"


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_was_joined_is_not_joined_again(ledger: Ledger, key: str | None) -> None:
    first = await submit_job(ledger, "one", **MERGE)
    request = chat_request("two", idempotency_key=key, **MERGE)
    job_id = ledger.jobs.new_id(request)

    results = [await submit_request(ledger.jobs, job_id, request) for _ in range(2)]

    assert results == [SubmitResult(first, new=False)] * 2
    assert await said(ledger, first) == "one\ntwo"
    again = await submit_request(ledger.jobs, job_id, request)
    assert again == SubmitResult(first, new=False), "also once it runs"


async def test_a_key_of_what_was_joined_leads_to_its_job(ledger: Ledger) -> None:
    first = await submit_job(ledger, "one", **MERGE)
    for _ in range(2):
        assert await submit_job(ledger, "two", idempotency_key="k", **MERGE) == first
    with pytest.raises(KeyReused):
        await submit_job(ledger, "another", idempotency_key="k", **MERGE)


async def test_nothing_joins_what_has_ended_or_what_would_be_too_long(
    settings: Settings, ledger: Ledger
) -> None:
    first = await submit_job(ledger, "one", **MERGE)
    await finish(ledger, first)
    second = await submit_job(ledger, "two", **MERGE)
    assert second != first
    async with Ledger(settings.model_copy(update={"max_message_bytes": 10}), patience_s=5) as small:
        assert await submit_job(small, "x" * 5, **MERGE) == second, "ten, as JSON"
        assert await submit_job(small, "y", **MERGE) != second


async def test_what_is_joined_counts_for_the_caps_on_bytes_alone(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    first = await submit_job(ledger, "one", **MERGE)
    size = int(inspector.open_counts()[":default"].split()[1])
    caps = {"max_open_per_conversation": 1, "max_bytes_per_conversation": size + 10}
    async with Ledger(settings.model_copy(update=caps), patience_s=5) as capped:
        assert await submit_job(capped, "123", **MERGE) == first
        with pytest.raises(QueueFull) as full:
            await submit_job(capped, "x" * 20, **MERGE)
    assert (full.value.scope, full.value.setting) == (
        "conversation",
        "AFTERWORD_MAX_BYTES_PER_CONVERSATION",
    )
    assert await said(ledger, first) == "one\n123"


async def test_an_erasure_removes_every_key_of_a_burst(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_job(ledger, "one", idempotency_key="a", **MERGE)
    await submit_job(ledger, "two", idempotency_key="b", **MERGE)
    await ledger.erasures.begin(lane_of(), "test")
    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=1)
    assert isinstance(held, EraseClaim)
    await ledger.erasures.remove_records(held)
    assert list(inspector.redis.scan_iter(inspector.keys.idempotency("*"))) == []


async def test_an_interruption_ends_nothing_of_others(ledger: Ledger) -> None:
    others = [
        await submit_and_claim(ledger, conversation_id="d"),
        await submit_and_claim(ledger, user_id="bob", **TALK),
        await submit_and_claim(ledger),
    ]
    await submit_job(ledger, when_busy="interrupt", **TALK)
    for other in others:
        await ledger.jobs.finish(other, reply_to(other))


async def test_a_wait_for_an_interrupted_message_ends_with_the_reason(settings: Settings) -> None:
    async with AsyncProducer(settings) as producer:
        job = await producer.submit(user_id="ann", message="one", **TALK)
        await producer.submit(user_id="ann", message="two", when_busy="interrupt", **TALK)
        with pytest.raises(JobFailed) as failed:
            await job.wait()
        assert (failed.value.state, failed.value.code) == ("cancelled", "interrupted")


# -- many at once


async def test_a_batch_keeps_the_order_of_each_conversation(
    settings: Settings, ledger: Ledger
) -> None:
    asked = [
        {"user_id": "ann", "message": f"{talk} {number}", "conversation_id": talk}
        for number in range(3)
        for talk in ("c", "d")
    ]
    async with AsyncProducer(settings) as producer:
        jobs = [job for job in await producer.submit_many(asked) if isinstance(job, AsyncJob)]
        assert len(jobs) == 6
        for first, later in zip(jobs, jobs[2:], strict=False):
            assert not await runs(ledger, later.id)
            await finish(ledger, first.id)


# -- how long


async def test_a_conversation_has_a_retention_time_of_its_own(
    settings: Settings, inspector: LedgerInspector
) -> None:
    lasting = settings.model_copy(update={"conversation_s": 1000.0, "retention_s": 10.0})
    async with Ledger(lasting, patience_s=5.0) as ledger:
        await submit_and_answer(ledger, **TALK)
    (talk,) = inspector.redis.scan_iter(inspector.keys.conversation("*"))
    assert 900 < inspector.redis.ttl(talk) <= 1000
