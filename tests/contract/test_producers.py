"""What every producer promises: the real ones before a real worker, and the fakes for tests."""

from __future__ import annotations

import uuid
from collections import UserDict
from collections.abc import AsyncIterator, Iterator, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from afterword.producer import (
    AsyncProducer,
    ChatRequest,
    ConversationBusy,
    Event,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    JobState,
    KeyReused,
    LedgerUnavailable,
    NoReplyInTime,
    Producer,
    QueueFull,
    TurnState,
)
from afterword.producer.testing import FakeAsyncProducer, FakeProducer
from tests.kit.producers import FakeStage, JobFace, ProducerFace, RealStage, Stage
from tests.kit.waiting import until
from tests.kit.workers.fleet import Fleet

TEXT = "A long answer, in many pieces, and each of them is a word or some more."
UNKNOWN = "j00_" + "0" * 32

_REAL = [pytest.mark.redis, pytest.mark.system]
KINDS = [
    pytest.param(Producer, marks=_REAL),
    pytest.param(AsyncProducer, marks=_REAL),
    FakeProducer,
    FakeAsyncProducer,
]

INVALID: list[tuple[dict[str, Any], str, str]] = [
    ({"user_id": ""}, "user_id", "must have at least 1 character"),
    ({"user_id": " ann"}, "user_id", "must not begin or end with a space"),
    ({"message": " "}, "message", "must not be blank"),
    ({"message": "a\x00b"}, "message", "must not hold NUL characters"),
    ({"message": "x" * 70_000}, "message", "must not exceed 65536 bytes"),
    ({"system": ""}, "system", "must not be blank"),
    ({"max_tokens": 0}, "max_tokens", "must be greater than or equal to 1"),
    ({"metadata": {"a": {1, 2}}}, "metadata", "must be plain JSON"),
    ({"metadata": "page 3"}, "metadata", "must be an object"),
    ({"expires_in": float("nan")}, "expires_in", "must be a finite number"),
    ({"when_busy": "reject"}, "when_busy", "needs a conversation_id"),
    ({"remember": None}, "remember", "must be a valid boolean"),
    ({"at": "2026-05-08"}, "at", "must have a time zone or an offset from UTC"),
    ({"at": "2999-01-01T00:00:00Z"}, "at", "must not be in the future"),
    (
        {"trace_context": {"traceparent": "00-1-2-01"}},
        "trace_context",
        "must have a traceparent as W3C Trace Context defines it",
    ),
    ({"timezone": "Berlin"}, "timezone", "must be an IANA time zone that this machine knows"),
    ({"priority": "urgent"}, "priority", "must be 'high', 'normal' or 'low'"),
]


SECRET = "marmalade"


class _Unreadable(UserDict[str, Any]):
    """A mapping that cannot be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError(SECRET)


#: What is no valid request, and would raise something else than `InvalidRequest` if it were let.
HOSTILE: list[Any] = [
    SECRET,
    None,
    5,
    b"bytes",
    [],
    [("user_id", "ann"), ("message", SECRET)],
    object(),
    {},
    {"user_id": "ann", "message": "hello", f"my {SECRET}": 1},
    {1: 2, "user_id": "ann", "message": "hello"},
    _Unreadable(user_id="ann", message="hello"),
    ChatRequest.model_construct(user_id="", message="hello"),
    {"user_id": "ann", "message": "x" * 70_000},
    {"user_id": "ann", "message": "hello", "metadata": {"a": 10**5000}},
    {"user_id": "ann", "message": "hello", "expires_in": 10**5000},
    {"user_id": "ann", "message": "hello", "max_tokens": 10**5000},
    {"user_id": "ann", "message": "hello", "at": 10**5000},
    {"user_id": "ann", "message": "hello", "timezone": "../" * 40},
    {"user_id": "\ud800", "message": "hello"},
    {"user_id": "ann", "message": "\ud800"},
]


@pytest.fixture(params=KINDS)
def stage(request: pytest.FixtureRequest, fleets: list[Fleet]) -> Iterator[Stage]:
    stage: Stage
    if issubclass(request.param, (FakeProducer, FakeAsyncProducer)):
        stage = FakeStage(request.param)
    else:
        if not fleets:
            fleets.append(Fleet(AFTERWORD_MEMORY="off").__enter__())
            fleets[0].launch("responses", "--concurrency", "100").ready()
        stage = RealStage(request.param, fleets[0])
    stage.forget()
    yield stage
    stage.forget()


@pytest.fixture
async def producer(stage: Stage) -> AsyncIterator[ProducerFace]:
    async with stage.open() as producer:
        yield producer


@pytest.fixture
def tenant() -> str:
    """Give a tenant that no other test has."""
    return uuid.uuid4().hex


def text_of(events: Sequence[Event]) -> str:
    """Return the text of the deltas that no restart has made void."""
    text = ""
    for event in events:
        text = "" if event.type == "restart" else text + (event.text or "")
    return text


async def test_a_job_is_followed_to_its_reply(stage: Stage, producer: ProducerFace) -> None:
    stage.hold(TEXT)
    job = await producer.submit(
        user_id="ann", message="hello", metadata=MappingProxyType({"page": 3})
    )
    assert (await job.status()).state in (JobState.QUEUED, JobState.RUNNING)
    with pytest.raises(NoReplyInTime, match=job.id):
        await job.wait(timeout=0.05)
    await stage.all_held(1)
    assert (await job.status()).state is JobState.RUNNING

    stage.release()
    reply = await job.wait()

    assert (reply.job_id, reply.user_id, reply.conversation_id) == (job.id, "ann", None)
    assert (reply.text, reply.stop_reason, reply.attempts) == (TEXT, "end_turn", 1)
    assert (reply.memory, reply.memories) == ("off", ())
    assert reply.usage.output > 0
    assert reply.timings_ms.total >= reply.timings_ms.queued + reply.timings_ms.model
    status = await job.status()
    assert (status.state, status.turn, status.attempts) == (JobState.SUCCEEDED, TurnState.NONE, 1)
    assert (status.code, status.turn_code) == (None, None)
    assert status.created_at < status.deadline
    assert not await job.cancel()


async def test_the_status_gives_back_what_a_request_said(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    metadata = {"page": 3, "tags": ["a", None], "nested": {"é": 1.5}}
    stage.hold()
    job = await producer.submit(
        user_id="ann", tenant=tenant, conversation_id="c", message="hello", metadata=metadata
    )
    await stage.all_held(1)
    status = await job.status()
    assert (status.tenant, status.user_id, status.conversation_id) == (tenant, "ann", "c")
    assert status.metadata == metadata
    await job.cancel()
    assert (await job.status()).metadata == metadata

    plain = await producer.submit(user_id="bob", message="hello")
    status = await plain.status()
    assert (status.tenant, status.user_id, status.conversation_id) == ("default", "bob", None)
    assert status.metadata is None
    await plain.wait()


async def test_the_status_says_when_what_happened(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold(TEXT)
    asked = {"user_id": "ann", "tenant": tenant, "conversation_id": "c"}
    job = await producer.submit(**asked, message="one")
    behind = await producer.submit(**asked, message="two")
    await stage.all_held(1)
    running, waiting = await job.status(), await behind.status()
    assert running.started_at is not None
    assert running.created_at <= running.started_at
    assert (running.first_text_at, running.ended_at) == (None, None)
    assert (waiting.started_at, waiting.first_text_at, waiting.ended_at) == (None, None, None)
    assert await behind.cancel()
    assert (await behind.status()).ended_at is not None

    stage.release()
    reply = await job.wait()

    status = await job.status()
    assert status.started_at == running.started_at
    assert status.first_text_at is not None
    assert status.ended_at is not None
    assert status.started_at <= status.first_text_at
    first_text_ms = (status.first_text_at - status.created_at).total_seconds() * 1000
    assert first_text_ms == pytest.approx(reply.timings_ms.first_text, abs=1)
    assert status.snoozes == 0


async def test_the_events_are_the_start_the_deltas_and_the_end(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.answer(TEXT)
    job = await producer.submit(user_id="ann", message="hello")

    events = await job.events()

    assert [event.type for event in events[:2]] == ["started", "recalled"]
    assert {event.type for event in events[2:-1]} == {"delta"}
    assert events[-1].type == "final"
    assert {event.attempt for event in events} == {1}
    assert len({event.id for event in events}) == len(events)
    assert text_of(events) == TEXT
    assert events[-1].reply == await job.wait()


async def test_with_memory_off_nothing_is_recalled_or_remembered(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.answer(TEXT)
    job = await producer.submit(user_id="ann", message="hello")

    recalled = (await job.events())[1]

    assert (recalled.type, recalled.memory, recalled.memories) == ("recalled", "off", ())
    assert (await job.wait()).not_remembered == "memory_off"


async def test_a_stream_goes_on_after_any_event(stage: Stage, producer: ProducerFace) -> None:
    stage.answer(TEXT)
    job = await producer.submit(user_id="ann", message="hello")
    events = await job.events()

    for position, event in enumerate(events):
        assert await producer.job(job.id).events(after=event.id) == events[position + 1 :]
    async for first in job.stream():
        assert first == events[0]
        break


@pytest.mark.parametrize("after", ["", "nonsense", "1-", "-1", "1-x", "(1-0", "+"])
async def test_a_malformed_event_id_is_refused(producer: ProducerFace, after: str) -> None:
    job = await producer.submit(user_id="ann", message="hello")
    with pytest.raises(InvalidRequest) as refused:
        await job.events(after)
    assert refused.value.field == "after"
    await job.wait()


async def test_an_event_of_no_job_or_of_another_is_refused(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.hold(TEXT)
    running = await producer.submit(user_id="ann", message="hello")
    await stage.all_held(1)
    stage.answer("another")
    other = await producer.submit(user_id="bob", message="hello")
    stage.release()
    await running.wait()
    events = await running.events()
    foreign = [event.id for event in await other.events() if event not in events]
    for after in ("18446744073709551614-1", "9-9", *foreign[-1:]):
        for job in (running, producer.job(running.id)):
            with pytest.raises(InvalidRequest) as refused:
                await job.events(after)
            assert (refused.value.field, refused.value.reason) == (
                "after", "must be the id of an event of this job",
            )  # fmt: skip
    assert await running.events("0-0") == events
    assert await running.events(f"00{events[0].id}") == events[1:]
    assert await running.events(events[-1].id) == []


async def test_a_job_that_has_not_begun_has_no_event_to_go_on_after(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold()
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c"}
    first = await producer.submit(**asked, message="one")
    await stage.all_held(1)
    behind = await producer.submit(**asked, message="two")
    with pytest.raises(InvalidRequest, match="after: must be the id of an event of this job"):
        await behind.events("1-0")
    with pytest.raises(JobNotFound):
        await producer.job(UNKNOWN).events("1-0")
    assert await behind.cancel()
    assert await first.cancel()


async def test_a_second_attempt_voids_the_text_of_the_first(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.restart(TEXT)
    job = await producer.submit(user_id="ann", message="hello")

    events = await job.events()

    types = [event.type for event in events]
    assert (types.count("started"), types.count("restart"), types[-1]) == (1, 1, "final")
    restart = types.index("restart")
    assert {event.attempt for event in events[:restart]} == {1}
    assert {event.attempt for event in events[restart:]} == {2}
    assert types[restart + 1] == "recalled"
    assert types[restart:].count("recalled") == 1
    assert text_of(events) == TEXT
    assert (await job.wait()).attempts == (await job.status()).attempts == 2


async def test_an_unknown_job_is_not_found(producer: ProducerFace) -> None:
    with pytest.raises(JobNotFound):
        producer.job("nonsense")
    job = producer.job(UNKNOWN)
    for ask in (job.wait, job.status, job.cancel, job.events):
        with pytest.raises(JobNotFound) as missing:
            await ask()
        assert missing.value.job_id == UNKNOWN


async def test_a_job_that_the_provider_refuses_fails_with_a_code(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.fail()
    job = await producer.submit(user_id="ann", message="hello")

    with pytest.raises(JobFailed) as failure:
        await job.wait()

    assert (failure.value.job_id, failure.value.state) == (job.id, "failed")
    last = (await job.events())[-1]
    assert (last.type, last.state, last.code) == ("failed", JobState.FAILED, failure.value.code)
    status = await job.status()
    assert (status.state, status.turn, status.code) == (
        JobState.FAILED, TurnState.NONE, failure.value.code,
    )  # fmt: skip
    assert not await job.cancel()


async def test_a_job_out_of_time_expires_while_it_runs(
    stage: Stage, producer: ProducerFace
) -> None:
    stage.hold()
    job = await producer.submit(user_id="ann", message="hello", expires_in=1.0)
    status = await job.status()
    assert (status.deadline - status.created_at).total_seconds() == pytest.approx(1, abs=0.1)

    with pytest.raises(JobFailed) as failure:
        await job.wait()

    assert (failure.value.state, failure.value.code) == ("expired", "deadline")
    last = (await job.events())[-1]
    assert (last.type, last.state, last.code) == ("failed", JobState.EXPIRED, "deadline")


async def test_a_cancelled_job_has_ended(stage: Stage, producer: ProducerFace) -> None:
    stage.hold()
    job = await producer.submit(user_id="ann", message="hello")
    await stage.all_held(1)

    assert await job.cancel()

    with pytest.raises(JobFailed) as failure:
        await job.wait()
    assert (failure.value.state, failure.value.code) == ("cancelled", "cancelled")
    assert await job.cancel(), "it is cancelled, now as before"
    last = (await job.events())[-1]
    assert (last.type, last.state, last.attempt) == ("failed", JobState.CANCELLED, 1)
    assert (await job.status()).turn is TurnState.NONE


async def test_the_same_key_with_the_same_request_is_the_same_job(
    producer: ProducerFace, tenant: str
) -> None:
    asked = {"tenant": tenant, "user_id": "ann", "message": "once", "idempotency_key": "k1"}
    first = await producer.submit(**asked)
    again, [many] = await producer.submit(**asked), await producer.submit_many([asked])
    assert isinstance(many, JobFace)
    assert first.id == again.id == many.id
    await first.wait()
    assert (await producer.submit(**asked)).id == first.id, "after its end as before"

    with pytest.raises(KeyReused, match="idempotency_key"):
        await producer.submit(**asked | {"message": "twice"})


@pytest.mark.finding(19)
async def test_a_key_belongs_to_its_user(producer: ProducerFace, tenant: str) -> None:
    asked = {"tenant": tenant, "user_id": "ann", "message": "once", "idempotency_key": "k1"}
    others = [{"user_id": "bob"}, {"tenant": f"{tenant}-2"}, {"user_id": "a", "message": "else"}]
    jobs = [await producer.submit(**asked | other) for other in [{}, *others]]

    assert len({job.id for job in jobs}) == len(jobs)
    for job in jobs:
        await job.wait()


async def test_bad_requests_among_many_stop_no_other(producer: ProducerFace) -> None:
    bad = {7: {"message": " "}, 50: {"priority": "urgent"}, 99: {"color": "blue"}}
    asked = [
        {"user_id": f"u{number}", "message": f"{number}"} | bad.get(number, {})
        for number in range(100)
    ]
    results = await producer.submit_many(asked)
    fields = {at: one.field for at, one in enumerate(results) if isinstance(one, InvalidRequest)}
    assert fields == {7: "message", 50: "priority", 99: "color"}
    jobs = [one for one in results if isinstance(one, JobFace)]
    assert len({job.id for job in jobs}) == 97
    assert [(await job.wait()).job_id for job in jobs] == [job.id for job in jobs]


@pytest.mark.finding(12)
async def test_each_invalid_request_of_many_gets_its_error_in_its_place(
    producer: ProducerFace,
) -> None:
    good = {"user_id": "ann", "message": "hello"}
    asked: list[Any] = [good]
    for bad in HOSTILE:
        asked += [bad, good]
    results = await producer.submit_many(asked)

    assert len(results) == len(asked)
    assert {type(one) for one in results[1::2]} == {InvalidRequest}
    jobs = [one for one in results[::2] if isinstance(one, JobFace)]
    assert len({job.id for job in jobs}) == len(HOSTILE) + 1
    assert not any(SECRET in str(one) for one in results[1::2])
    for job in jobs:
        await job.wait()  # a cancelled one might still take the answer of the next test


@pytest.mark.finding(12)
async def test_an_iterable_that_raises_midway_loses_no_job(producer: ProducerFace) -> None:
    def requests() -> Iterator[dict[str, str]]:
        yield {"user_id": "ann", "message": "one"}
        yield {"user_id": "ann", "message": "two"}
        raise OSError(SECRET)

    first, second, broken = await producer.submit_many(requests())

    assert isinstance(first, JobFace)
    assert isinstance(second, JobFace)
    assert isinstance(broken, InvalidRequest)
    assert str(broken) == "requests: iterating raised OSError"
    assert isinstance(broken.__cause__, OSError)
    for job in (first, second):
        assert (await job.wait()).job_id == job.id


@pytest.mark.finding(12)
async def test_submit_many_refuses_what_cannot_be_iterated(producer: ProducerFace) -> None:
    with pytest.raises(InvalidRequest, match="requests: must be an iterable"):
        await producer.submit_many(5)  # type: ignore[arg-type]


async def test_a_request_may_be_given_whole(producer: ProducerFace) -> None:
    [job] = await producer.submit_many([ChatRequest(user_id="ann", message="hello")])
    assert isinstance(job, JobFace)
    assert (await job.wait()).user_id == "ann"
    assert await producer.submit_many([]) == []


@pytest.mark.parametrize(("fields", "field", "reason"), INVALID)
async def test_an_invalid_request_is_refused_by_its_field(
    producer: ProducerFace, fields: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await producer.submit(**{"user_id": "ann", "message": "hello"} | fields)
    assert (refused.value.field, refused.value.reason) == (field, reason)


async def test_messages_of_a_conversation_are_answered_in_order(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold("first")
    stage.answer("second")
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c"}
    first = await producer.submit(**asked, message="one")
    second = await producer.submit(**asked, message="two")
    await stage.all_held(1)
    assert (await second.status()).state is JobState.QUEUED
    with pytest.raises(ConversationBusy, match="conversation_id"):
        await producer.submit(**asked, message="three", when_busy="reject")

    stage.release()

    assert [(await job.wait()).text for job in (first, second)] == ["first", "second"]
    assert (await first.wait()).conversation_id == "c"
    late = await producer.submit(**asked, message="three", when_busy="reject")
    assert (await late.wait()).attempts == 1


async def test_many_messages_of_a_conversation_keep_their_order(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    texts = ["first", "second", "third"]
    for text in texts:
        stage.answer(text)
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c"}
    jobs = await producer.submit_many([asked | {"message": text} for text in texts])
    replies = [await job.wait() for job in jobs if isinstance(job, JobFace)]
    assert [reply.text for reply in replies] == texts


async def test_a_message_may_interrupt_those_before_it(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold("first")
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c"}
    first = await producer.submit(**asked, message="one")
    await stage.all_held(1)
    second = await producer.submit(**asked, message="two")
    stage.answer("third")
    third = await producer.submit(**asked, message="three", when_busy="interrupt")

    assert (await third.wait()).text == "third"
    for job in (first, second):
        with pytest.raises(JobFailed) as failure:
            await job.wait()
        assert (failure.value.state, failure.value.code) == ("cancelled", "interrupted")


async def test_a_burst_of_messages_gets_one_reply(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold("to one alone")
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c", "when_busy": "merge"}
    first = await producer.submit(**asked, message="one")
    await stage.all_held(1)
    stage.answer("to both")
    second = await producer.submit(**asked, message="two", idempotency_key="k")
    again = await producer.submit(**asked, message="two", idempotency_key="k")

    assert second.id == again.id == first.id
    assert (await first.wait()).text == "to both"
    kinds = [event.type for event in await first.events()]
    assert kinds[:2] == ["started", "restart"]
    assert (await first.status()).attempts == 1
    third = await producer.submit(**asked, message="three")
    assert third.id != first.id, "it has its reply"
    assert (await third.wait()).text


async def test_another_request_does_not_join_a_burst(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.hold("one")
    asked = {"tenant": tenant, "user_id": "ann", "conversation_id": "c", "when_busy": "merge"}
    first = await producer.submit(**asked, message="one")
    await stage.all_held(1)
    second = await producer.submit(**asked, message="two", system="Be brief.")
    assert second.id != first.id
    stage.release()
    assert (await first.wait()).text == "one"
    assert (await second.wait()).text


async def test_a_full_queue_refuses_new_requests(stage: Stage) -> None:
    stage.hold()
    async with stage.open(max_queued=1) as producer:
        job = await producer.submit(user_id="ann", message="hello")
        await stage.all_held(1)
        with pytest.raises(QueueFull):
            await producer.submit(user_id="bob", message="hello")
        assert await job.cancel()
        stage.answer("hello bob")
        assert (await (await producer.submit(user_id="bob", message="hello")).wait()).text


@pytest.mark.finding(13)
@pytest.mark.parametrize(
    ("setting", "fields", "scope"),
    [
        ("max_open_per_conversation", {"conversation_id": "c"}, "conversation"),
        ("max_bytes_per_user", {"message": "x" * 100}, "user"),
        ("max_open_per_tenant", {}, "tenant"),
        ("max_high_per_tenant", {"priority": "high"}, "tenant"),
    ],
)
async def test_a_full_tenant_is_not_anothers(
    stage: Stage, tenant: str, setting: str, fields: dict[str, Any], scope: str
) -> None:
    asked = {"user_id": "ann", "message": "hello", "tenant": tenant} | fields
    stage.hold()
    async with stage.open(**{setting: 300 if "bytes" in setting else 1}) as producer:
        job = await producer.submit(**asked)
        await stage.all_held(1)
        with pytest.raises(QueueFull) as full:
            await producer.submit(**asked)
        assert (full.value.scope, full.value.setting) == (scope, f"AFTERWORD_{setting.upper()}")
        other = await producer.submit(**asked | {"tenant": f"{tenant}-2"})
        assert await job.cancel()
        await (await producer.submit(**asked)).wait()
        await other.wait()


async def test_usage_sums_up_the_tokens_of_all_replies(producer: ProducerFace, tenant: str) -> None:
    assert (await producer.usage(tenant=tenant)).replies == 0
    replies = [
        await (await producer.submit(tenant=tenant, user_id=user, message="hello")).wait()
        for user in ("ann", "ann", "bob")
    ]
    whole, of_ann = (
        await producer.usage(tenant=tenant),
        await producer.usage(tenant=tenant, user_id="ann"),
    )
    assert (whole.replies, of_ann.replies, of_ann.user_id) == (3, 2, "ann")
    assert whole.usage.output == sum(reply.usage.output for reply in replies)
    assert of_ann.usage.input == sum(reply.usage.input for reply in replies[:2])


@pytest.mark.parametrize("timeout", [0, 1e-9])
async def test_a_wait_without_time_says_what_is_so(
    stage: Stage, producer: ProducerFace, timeout: float
) -> None:
    stage.answer(TEXT)
    done = await producer.submit(user_id="ann", message="hello")
    reply = await done.wait()
    assert await done.wait(timeout=timeout) == reply
    stage.hold()
    job = await producer.submit(user_id="ann", message="hello")
    with pytest.raises(NoReplyInTime, match=job.id):
        await job.wait(timeout=timeout)
    assert await job.cancel()
    with pytest.raises(JobFailed, match="cancelled"):
        await job.wait(timeout=timeout)
    with pytest.raises(JobNotFound):
        await producer.job(job.id[:-4] + "0000").wait(timeout=timeout)


async def test_a_ping_finds_what_a_submit_would(stage: Stage, producer: ProducerFace) -> None:
    await producer.ping()
    async with stage.no_redis() as away:
        for ask in (away.ping, lambda: away.submit(user_id="ann", message="hello"), away.ping):
            with pytest.raises(LedgerUnavailable) as unavailable:
                await ask()
            error = unavailable.value
            assert (error.cause, error.http_status) == ("refused", 503)
            assert error.http_headers == {"Retry-After": "1"}


async def test_what_an_attempt_without_a_reply_used_is_summed_up_as_well(
    stage: Stage, producer: ProducerFace, tenant: str
) -> None:
    stage.restart(TEXT)
    job = await producer.submit(tenant=tenant, user_id="ann", message="hello")
    reply = await job.wait()
    stage.fail()
    failed = await producer.submit(tenant=tenant, user_id="ann", message="hello")
    with pytest.raises(JobFailed):
        await failed.wait()

    async def counted() -> bool:  # a worker counts them when the job has ended
        return (await job.status()).usage.input == 2 * reply.usage.input

    await until(counted, "both attempts are counted")
    used = (await job.status()).usage
    assert used.output >= reply.usage.output
    whole = await producer.usage(tenant=tenant)
    assert (whole.replies, whole.usage) == (1, used)
    assert (await producer.usage(tenant=tenant, user_id="ann")).usage == used


async def test_a_handle_shows_its_id(producer: ProducerFace) -> None:
    assert UNKNOWN in repr(producer.job(UNKNOWN))


async def test_a_call_after_the_end_opens_a_producer_again(
    stage: Stage, producer: ProducerFace
) -> None:
    await producer.close()
    stage.answer(TEXT)
    job = await producer.submit(user_id="ann", message="hello")
    await producer.close()
    assert (await job.wait()).text == TEXT
