"""One trace from the submit to the reply, linked to the memory write, without a word of content."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    use_span,
)

from afterword.producer import AsyncProducer, ConversationBusy, LedgerUnavailable
from afterword.shared.contracts import Usage
from afterword.shared.errors import BadAnswer, Rejected, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.logs import JsonFormatter, log_event
from afterword.shared.names import gate_of, memory_key
from afterword.shared.observer import bound, subscribe, unsubscribe
from afterword.shared.settings import Settings
from afterword.shared.spans import PROCESS, PUBLISH, RECALL, SEND, STORE, WAIT
from afterword.shared.trace_context import context_of, trace_of
from afterword.shared.traces import recorder_in_use
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.ports import Turn
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_job
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.traced import Traced, ids_of, links_of, traced
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "vendor=1"}
CHAT = "chat claude-sonnet-5-5"
CANARY = "marmalade"
LIKES = "I like green tea."
AT = datetime(2026, 5, 8, tzinfo=UTC)


class Worker:
    """A responder and a memory writer between fakes, on a real ledger."""

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        settings = settings.model_copy(update={"traces": True})
        self.model, self.memories = FakeModel(), FailingMemories()
        self.leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
        gates = GateClient(ledger.gates)
        recaller = Recaller(
            self.memories, gates, budget=RecallBudget(60.0), limit=5, least_score=0.0
        )
        caller = ModelCaller(settings, self.model, gates)
        self.respond = Responder(
            settings, ledger.jobs, caller, recaller, self.leases, b"tag key"
        ).respond
        self.write = LaneWriter(settings, ledger, self.memories).write


@pytest.fixture
def worker(settings: Settings, ledger: Ledger) -> Worker:
    return Worker(settings, ledger)


@pytest.fixture
def spans(settings: Settings) -> Iterator[Traced]:
    with traced(settings) as found:
        yield found


def only(found: Traced, name: str) -> ReadableSpan:
    (span,) = found.named(name)
    return span


def parent_of(span: ReadableSpan) -> tuple[int, int] | None:
    return (span.parent.trace_id, span.parent.span_id) if span.parent else None


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def submitted(settings: Settings, **fields: Any) -> str:
    """Submit a job as a program whose traces are on does."""
    known = settings.model_copy(update={"traces": True})
    async with AsyncProducer(known) as producer:
        asked: dict[str, Any] = {"user_id": "ann", "message": LIKES} | fields
        return (await producer.submit(**asked)).id


# -- the whole way


async def test_one_trace_goes_from_the_caller_to_the_reply_and_is_linked_to_the_write(
    settings: Settings, worker: Worker, spans: Traced
) -> None:
    worker.model.answers("hi", usage=Usage(input=10, output=3, cache_read=5, cache_write=2))
    job_id = await submitted(settings, trace_context=PARENT)
    await worker.respond(job_id)
    await worker.write()

    by_name = {span.name: span for span in spans.end()}

    assert set(by_name) == {SEND, WAIT, PROCESS, RECALL, CHAT, PUBLISH, STORE}
    send, process, store = by_name[SEND], by_name[PROCESS], by_name[STORE]
    caller = int(TRACE, 16), int(CALLER, 16)
    assert [parent_of(send), parent_of(process), parent_of(by_name[WAIT])] == [
        caller, ids_of(send), ids_of(send),
    ]  # fmt: skip
    assert {parent_of(by_name[name]) for name in (RECALL, CHAT, PUBLISH)} == {ids_of(process)}
    assert {ids_of(span)[0] for span in by_name.values() if span is not store} == {caller[0]}
    assert (parent_of(store), links_of(store)) == (None, [ids_of(by_name[PUBLISH])])
    assert ids_of(store)[0] != caller[0]
    assert links_of(process) == [ids_of(send)], "messaging spans link to what made the message"
    assert {name: span.kind for name, span in by_name.items()} == {
        SEND: SpanKind.PRODUCER, WAIT: SpanKind.INTERNAL, PROCESS: SpanKind.CONSUMER,
        RECALL: SpanKind.CLIENT, CHAT: SpanKind.CLIENT, PUBLISH: SpanKind.PRODUCER,
        STORE: SpanKind.CONSUMER,
    }  # fmt: skip
    for span in by_name.values():
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time
    assert send.context is not None
    assert send.context.trace_state.to_header() == "vendor=1"
    assert not [span for span in by_name.values() if span.status.status_code is StatusCode.ERROR]


async def test_spans_say_what_the_conventions_name(
    settings: Settings, worker: Worker, spans: Traced
) -> None:
    worker.model.answers("hi", usage=Usage(input=10, output=3, cache_read=5, cache_write=2))
    job_id = await submitted(settings)
    await worker.respond(job_id)

    by_name = {span.name: said(span) for span in spans.end()}

    chat = by_name[CHAT]
    assert chat.pop("gen_ai.response.time_to_first_chunk") >= 0
    assert chat == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "claude-sonnet-5-5",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "claude-sonnet-5-5",
        "gen_ai.response.finish_reasons": ("end_turn",),
        "gen_ai.usage.input_tokens": 17,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_write.input_tokens": 2,
        "server.address": "api.anthropic.com",
        "server.port": 443,
    }
    assert by_name[SEND] == {
        "messaging.system": "afterword",
        "messaging.destination.name": "replies",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.message.id": job_id,
    }
    assert by_name[PROCESS]["afterword.outcome"] == "replied"
    assert by_name[PROCESS]["afterword.memory"] == "fresh"
    assert by_name[PROCESS]["messaging.message.id"] == job_id
    assert by_name[RECALL]["gen_ai.operation.name"] == "search_memory"
    (chat_span,) = [span for span in spans.end() if span.name == CHAT]
    assert [event.name for event in chat_span.events] == ["afterword.first_text"]


async def test_a_job_without_a_caller_begins_a_trace_of_its_own(
    ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    """Its producer may be older, or have its traces off."""
    job_id = await submit_job(ledger, LIKES)
    await worker.respond(job_id)
    await worker.write()

    by_name = {span.name: span for span in spans.end()}

    process = by_name[PROCESS]
    assert parent_of(process) is None
    assert ids_of(process)[0] == int(trace_of(job_id).trace_id, 16)
    assert parent_of(by_name[WAIT]) == ids_of(process)
    assert links_of(by_name[STORE]) == [ids_of(by_name[PUBLISH])]


async def test_what_the_caller_does_not_sample_is_not_recorded(
    ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    trace = context_of({"traceparent": f"00-{TRACE}-{CALLER}-00"})
    await worker.respond(await submit_job(ledger, LIKES, trace_context=trace))
    await worker.write()

    assert spans.end() == ()
    assert len(worker.memories.calls) == 2, "recall and add went on"


# -- attempts


async def test_an_attempt_that_was_killed_has_no_end_and_the_next_one_is_linked_to_it(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector, spans: Traced
) -> None:
    job_id = await submit_job(ledger, LIKES)
    killed = await ledger.jobs.claim(job_id, "of a worker that is killed")
    assert killed is not None
    inspector.make_due(job_id)
    await worker.respond(job_id)

    found = spans.end()

    (process,) = [span for span in found if span.name == PROCESS]
    assert said(process)["afterword.attempt"] == 2
    trace_id, _ = ids_of(process)
    assert [link[0] for link in links_of(process)] == [trace_id]
    assert WAIT not in {span.name for span in found}, "it has waited for its first attempt only"


async def test_retries_and_snoozes_are_spans_of_one_trace_each_linked_to_the_one_before(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector, spans: Traced
) -> None:
    worker.model.fails(BadAnswer("bad_answer", request_id="req_1"))
    worker.model.fails(Unavailable("overloaded"))
    worker.model.answers("hi")
    job_id = await submit_job(ledger, LIKES)
    for _ in range(3):
        inspector.make_due(job_id)
        inspector.end_pause(gate_of("claude-sonnet-5-5"))
        await worker.respond(job_id)

    found = spans.end()

    attempts = [span for span in found if span.name == PROCESS]
    outcomes = [(said(one)["afterword.outcome"], one.status.status_code) for one in attempts]
    assert outcomes == [
        ("retried", StatusCode.ERROR), ("snoozed", StatusCode.ERROR), ("replied", StatusCode.UNSET),
    ]  # fmt: skip
    assert said(attempts[0])["error.type"] == "bad_answer"
    assert said(attempts[0])["afterword.delay_s"] > 0
    assert len({ids_of(one)[0] for one in attempts}) == 1
    assert links_of(attempts[1]) == [ids_of(attempts[0])]
    assert links_of(attempts[2]) == [ids_of(attempts[1])]
    calls = [span for span in found if span.name == CHAT]
    assert [said(one).get("error.type") for one in calls] == ["bad_answer", "overloaded", None]
    assert said(calls[0])["afterword.request_id"] == "req_1"


async def test_a_job_whose_gate_is_shut_has_an_attempt_that_did_not_fail(
    ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    worker.model.fails(Unavailable("overloaded"))
    for _ in range(8):
        worker.model.fails(Unavailable("overloaded"))
        await worker.respond(await submit_job(ledger, LIKES))

    ends = [said(one)["afterword.outcome"] for one in spans.named(PROCESS)]
    assert ends[-1] == "released"
    released = spans.named(PROCESS)[-1]
    assert released.status.status_code is StatusCode.UNSET
    assert said(released)["afterword.code"] == "overloaded"


async def test_a_worker_that_stops_ends_its_spans(
    ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    worker.model.answers("hi", holds=True)
    running = asyncio.create_task(worker.respond(await submit_job(ledger, LIKES)))
    await until(lambda: worker.model.held, "the model has been called")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running

    assert said(only(spans, PROCESS))["afterword.outcome"] == "returned"
    assert said(only(spans, CHAT))["error.type"] == "cancelled"


# -- memory


async def test_turns_that_are_added_together_are_all_linked(
    ledger: Ledger, worker: Worker, spans: Traced
) -> None:
    for number in range(3):
        await worker.respond(await submit_job(ledger, f"I like tea number {number}."))
    await worker.write()

    found = spans.end()

    published = [ids_of(span) for span in found if span.name == PUBLISH]
    stored = [span for span in found if span.name == STORE]
    assert sorted(link for one in stored for link in links_of(one)) == sorted(published)
    assert sum(said(one)["messaging.batch.message_count"] for one in stored) == 3
    assert {said(one)["afterword.outcome"] for one in stored} == {"stored"}


async def test_a_write_that_fails_says_why_and_comes_again_with_the_same_link(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector, spans: Traced
) -> None:
    await worker.respond(await submit_job(ledger, LIKES))
    worker.memories.fail("add", BadAnswer("malformed"))
    await worker.write()
    inspector.make_due(lane_of())
    await worker.write()

    first, second = spans.named(STORE)
    assert said(first)["error.type"] == "malformed"
    assert said(first)["afterword.outcome"] == "postponed"
    assert said(second)["afterword.outcome"] == "stored"
    assert links_of(first) == links_of(second)
    assert ids_of(first)[0] != ids_of(second)[0]


# -- the producer


async def test_a_submit_that_is_refused_has_a_span_that_says_why(
    settings: Settings, ledger: Ledger, spans: Traced
) -> None:
    asked = {"conversation_id": "c", "when_busy": "reject"}
    await submitted(settings, **asked)
    with pytest.raises(ConversationBusy):
        await submitted(settings, **asked)

    (_, refused) = spans.named(SEND)
    assert said(refused)["error.type"] == "ConversationBusy"


async def test_a_submit_that_redis_does_not_confirm_has_a_span_that_says_so(spans: Traced) -> None:
    away = Settings(redis_url="redis://127.0.0.1:1", durability="none", submit_timeout_s=0.2)
    with pytest.raises(LedgerUnavailable):
        await submitted(away)

    assert said(only(spans, SEND))["error.type"] == "LedgerUnavailable"


async def test_the_active_span_is_the_parent_of_a_submit(
    settings: Settings, ledger: Ledger, spans: Traced
) -> None:
    active = SpanContext(
        int(TRACE, 16), int(CALLER, 16), is_remote=False, trace_flags=TraceFlags(1)
    )
    with use_span(NonRecordingSpan(active)):
        await submitted(settings)
        async with AsyncProducer(settings) as quiet:
            jobs = await quiet.submit_many([{"user_id": "bob", "message": LIKES}])

    assert parent_of(only(spans, SEND)) == (int(TRACE, 16), int(CALLER, 16))
    (job,) = jobs
    assert not isinstance(job, Exception)
    claim = await ledger.jobs.claim(job.id, "t")
    assert claim is not None
    assert claim.trace == PARENT["traceparent"], "passed on, though no span of ours is recorded"


async def test_the_same_request_from_another_span_is_the_same_job(
    settings: Settings, ledger: Ledger, spans: Traced
) -> None:
    first = await submitted(settings, idempotency_key="k", trace_context=PARENT)
    again = await submitted(settings, idempotency_key="k")

    assert first == again
    assert [said(one)["messaging.message.id"] for one in spans.named(SEND)] == [first, first]
    claim = await ledger.jobs.claim(first, "t")
    assert claim is not None
    assert claim.trace[3:35] == TRACE


# -- nothing of what was said


async def test_no_span_and_no_log_line_holds_content_or_who_it_is_about(
    settings: Settings, ledger: Ledger, worker: Worker, spans: Traced, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG, "afterword")
    subscription = subscribe(log_event)
    names = dict.fromkeys(("user_id", "conversation_id", "tenant", "idempotency_key"), CANARY)
    past = Turn("t1", f"{CANARY} is liked.", f"{CANARY}, noted.", AT)
    await worker.memories.add(memory_key(CANARY, CANARY), past)
    for fails in (False, True):
        if fails:
            worker.model.fails(Rejected("bad_answer"), f"{CANARY} piece")
        else:
            worker.model.answers(f"{CANARY} answer")
        job_id = await submitted(
            settings, **names | {"idempotency_key": f"{CANARY}{fails}"},
            message=f"I like {CANARY}.", system=f"{CANARY} system", metadata={CANARY: CANARY},
            trace_context=PARENT | {"baggage": f"user={CANARY}"},
        )  # fmt: skip
        await worker.respond(job_id)
    await worker.write(lane_of(CANARY, CANARY))
    unsubscribe(subscription)

    found = spans.end()
    lines = "\n".join(JsonFormatter().format(record) for record in caplog.records)

    assert {span.name for span in found} >= {SEND, PROCESS, RECALL, CHAT, PUBLISH, STORE}
    assert CANARY.encode() not in encode_spans(found).SerializeToString()
    assert CANARY not in lines
    assert f'"trace_id": "{TRACE}"' in lines
    assert "vendor=1" not in lines


# -- off


async def test_off_nobody_listens_and_a_job_is_not_given_a_trace(
    settings: Settings, ledger: Ledger
) -> None:
    assert recorder_in_use(settings) is None
    async with AsyncProducer(settings) as producer:
        job = await producer.submit(user_id="ann", message=LIKES)
    claim = await ledger.jobs.claim(job.id, "t")
    assert claim is not None
    assert claim.trace == ""


def test_the_id_of_the_trace_stands_in_log_lines() -> None:
    record = logging.LogRecord("afterword", logging.INFO, "", 0, "hello", None, None)
    with bound(trace=f"00-{TRACE}-{CALLER}-01 secret=state"):
        line = JsonFormatter().format(record)
    assert f'"trace_id": "{TRACE}"' in line
    assert "secret" not in line
