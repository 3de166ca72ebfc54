"""W3C trace context: what is taken from a caller, what is stored, which ids are made of what."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState, use_span

from afterword.shared.contracts import ChatRequest
from afterword.shared.errors import InvalidRequest
from afterword.shared.trace_context import (
    NO_SPAN,
    TraceContext,
    active_context,
    context_of,
    read_stored,
    span_id_of,
    trace_id_in,
    trace_of,
)

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
SECRET = "marmalade"


def refusal(trace_context: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as found:
        ChatRequest.parse(
            {"user_id": "ann", "message": "hi", "trace_context": trace_context},
            max_bytes=100,
            max_tokens=100,
        )
    return found.value


def accepted(trace_context: Any) -> TraceContext | None:
    asked = ChatRequest.parse(
        {"user_id": "ann", "message": "hi", "trace_context": trace_context},
        max_bytes=100,
        max_tokens=100,
    )
    return asked.trace_context


@contextmanager
def active(**fields: Any) -> Iterator[None]:
    """Make a span the active one, as an instrumented program does."""
    context = SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, **fields)
    with use_span(NonRecordingSpan(context)):
        yield


@pytest.mark.parametrize(
    ("carrier", "stored"),
    [
        ({"traceparent": PARENT}, PARENT),
        ({"traceparent": PARENT, "tracestate": ""}, PARENT),
        ({"traceparent": PARENT, "tracestate": "a=1, b@c=2"}, f"{PARENT} a=1, b@c=2"),
        ({"traceparent": PARENT, "baggage": f"user={SECRET}"}, PARENT),
        ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, f"00-{TRACE}-{SPAN}-00"),
        ({"traceparent": f"cc-{TRACE}-{SPAN}-01-what-the-future-brings"}, PARENT),
        ({"traceparent": f"00-{TRACE}-{SPAN}-ff"}, f"00-{TRACE}-{SPAN}-03"),
    ],
)
def test_a_context_is_taken_and_stored(carrier: Mapping[str, str], stored: str) -> None:
    found = accepted(carrier)

    assert found is not None
    assert found.stored == stored
    assert read_stored(stored) == found
    assert trace_id_in(stored) == TRACE
    assert accepted(found) == found, "a ChatRequest may be given again"


def test_an_empty_one_is_none() -> None:
    assert accepted({}) is None
    assert accepted({"baggage": "a=1"}) is None
    assert accepted(None) is None
    assert trace_id_in("") == ""


@pytest.mark.parametrize(
    "wrong",
    [
        SECRET,
        [("traceparent", PARENT)],
        {"trace_parent": PARENT},
        {"traceparent": PARENT, "authorization": SECRET},
        {"tracestate": "a=1"},
        {"traceparent": None, "tracestate": "a=1"},
        {"traceparent": 7},
        {"traceparent": SECRET},
        {"traceparent": PARENT.upper()},
        {"traceparent": f"{PARENT}\n"},
        {"traceparent": f"{PARENT}-{SECRET}"},
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{NO_SPAN}-01"},
        {"traceparent": PARENT, "tracestate": 7},
        {"traceparent": PARENT, "tracestate": SECRET},
        {"traceparent": PARENT, "tracestate": "a=1\nb=2"},
        {"traceparent": PARENT, "tracestate": "a=" + "x" * 600},
        {"traceparent": PARENT, "tracestate": ",".join(f"a{number}=1" for number in range(33))},
    ],
)
def test_a_bad_one_is_refused_by_name_and_not_repeated(wrong: Any) -> None:
    error = refusal(wrong)

    assert error.field == "trace_context"
    shown = "".join(traceback.format_exception(error)) + repr(vars(error))
    assert not [secret for secret in (SECRET, TRACE) if secret in shown]


def test_it_is_no_part_of_the_request() -> None:
    """Idempotency keys and older workers see the same body, whatever span it was sent from."""
    plain = ChatRequest(user_id="ann", message="hi")
    traced = plain.model_copy(update={"trace_context": context_of({"traceparent": PARENT})})

    assert traced.body() == plain.body()
    assert traced.fingerprint() == plain.fingerprint()
    assert traced.record_version == plain.record_version


def test_the_active_span_is_found() -> None:
    assert active_context() is None
    with active(trace_flags=TraceFlags(1), trace_state=TraceState([("a", "1")])):
        found = active_context()

    assert found == TraceContext(TRACE, SPAN, 1, "a=1")
    assert found is not None
    assert found.sampled


def test_one_that_is_not_sampled_is_passed_on_all_the_same() -> None:
    with active():
        found = active_context()
    assert found == TraceContext(TRACE, SPAN)


def test_a_half_imported_opentelemetry_has_no_active_span(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trace.get_current_span() is not None
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", type(sys)("opentelemetry.trace"))
    assert active_context() is None


def test_a_producer_imports_nothing_that_records_or_exports_spans() -> None:
    """Off costs nothing: not even the time of an import. redis-py imports the API by itself."""
    program = (
        "import sys; from afterword.producer.testing import FakeProducer; "
        "producer = FakeProducer(); producer.submit(user_id='ann', message='hi'); "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.sdk.trace', "
        "'opentelemetry.exporter', 'opentelemetry.proto'))])"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("text", ["", "x", f"{PARENT[:-1]}", f"00-{'0' * 32}-{SPAN}-01 a=1"])
def test_a_stored_context_that_cannot_be_read_is_none(text: str) -> None:
    assert read_stored(text) is None


def test_ids_are_made_of_names() -> None:
    assert trace_of("j1") == trace_of("j1") != trace_of("j2")
    assert read_stored(trace_of("j1").stored) == trace_of("j1")
    assert span_id_of("send", "j1") == span_id_of("send", "j1")
    steps = {span_id_of(step, job) for step in ("send", "publish") for job in ("j1", "j2")}
    assert len(steps) == 4
    context_of({"traceparent": f"00-{trace_of('j1').trace_id}-{span_id_of('send', 'j1')}-01"})
