"""Exporting spans: only where the operator says, bounded, and never in the way of a job."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from afterword.shared import traces
from afterword.shared.errors import Misconfigured
from afterword.shared.events import JobClaimed, JobOvertaken, SpansDropped, TracesExported
from afterword.shared.logs import LINES
from afterword.shared.observer import bound, emit
from afterword.shared.settings import Settings
from afterword.shared.spans import PROCESS
from afterword.shared.trace_context import read_stored
from afterword.shared.traces import close_traces, recorder_in_use, tracing
from tests.kit.servers.otlp_receiver import otlp_receiver
from tests.kit.workers.observed import observed

ON = Settings(redis_url="redis://127.0.0.1:1", traces=True)
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SECRET = "marmalade"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    monkeypatch.setattr(traces, "FLUSH_S", 60.0)
    yield
    close_traces()


class Broken:
    """An exporter that fails as it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        if self._error is not None:
            raise self._error
        logging.getLogger("opentelemetry.exporter.otlp.proto.http.trace_exporter").error("again")
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Do nothing."""


class Stuck:
    """An exporter that does not come back until it is let go."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        self.entered.set()
        self.released.wait(60)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""


def attempts(number: int) -> None:
    """Report attempts at jobs, of two spans each."""
    for each in range(number):
        with bound(job_id=f"j{each}", attempt=1):
            emit(JobClaimed, queued_s=0.1, snoozes=0, fence="1")
            emit(JobOvertaken)


def test_off_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    assert recorder_in_use(Settings(redis_url="redis://127.0.0.1:1")) is None


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")]
)
def test_the_standard_variables_turn_it_off(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    assert recorder_in_use(ON) is None


def test_nothing_is_sent_to_a_default_endpoint() -> None:
    with pytest.raises(Misconfigured, match=ENDPOINT):
        recorder_in_use(ON)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (ENDPOINT, SECRET),
        (ENDPOINT, f"ftp://{SECRET}"),
        (ENDPOINT, "http://[::1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"//{SECRET}"),
        ("OTEL_TRACES_EXPORTER", f"console,{SECRET}"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
        ("OTEL_TRACES_SAMPLER_ARG", "many"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
    ],
)
def test_what_the_sdk_would_replace_by_a_default_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    if name == "OTEL_TRACES_SAMPLER_ARG":
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured, match=name) as refused:
        recorder_in_use(ON)
    assert SECRET not in str(refused.value)


def test_spans_go_to_the_endpoint_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver, observed(TracesExported) as events:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "my-fleet")
        with tracing(ON):
            attempts(1)

        assert [span.name for span in receiver.spans] == ["wait replies", PROCESS]
        assert [one["service.name"] for one in receiver.resources] == ["my-fleet"]
        (told,) = events.of(TracesExported)
        assert receiver.url == f"http://{told.address}"


def test_the_service_has_a_name_of_its_own_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        with tracing(ON):
            attempts(1)
        assert [one["service.name"] for one in receiver.resources] == ["afterword"]


def test_the_sampler_of_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    with otlp_receiver() as receiver:
        monkeypatch.setenv(ENDPOINT, receiver.url)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
        with tracing(ON):
            attempts(200)
        assert 50 < len(receiver.named(PROCESS)) < 150


@pytest.mark.parametrize("error", [None, ValueError(SECRET)])
def test_an_exporter_that_fails_disturbs_nothing_and_is_told_of_once(
    caplog: pytest.LogCaptureFixture, error: Exception | None
) -> None:
    caplog.set_level(logging.WARNING)
    with observed(SpansDropped) as events:
        for _ in range(2):
            with tracing(ON, Broken(error)):
                attempts(1000)

    dropped = events.of(SpansDropped)
    assert sum(one.spans for one in dropped) == 4000
    assert {one.code for one in dropped} == {"not_sent"}
    assert [one.first for one in dropped].count(True) == 2
    assert [LINES[SpansDropped].level_of(one) for one in dropped].count(logging.WARNING) == 2
    assert [one for one in caplog.records if one.name.startswith("opentelemetry")] == []
    assert SECRET not in caplog.text


def test_the_queue_is_bounded_and_what_does_not_fit_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "opentelemetry")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "10")
    stuck = Stuck()
    with observed(SpansDropped) as events, tracing(ON, stuck):
        attempts(5)
        assert stuck.entered.wait(60)
        attempts(100)
        lost = sum(one.spans for one in events.of(SpansDropped))
        stuck.released.set()

    assert lost == 200 - 100
    assert {one.code for one in events.of(SpansDropped)} == {"queue_full"}
    assert [one for one in caplog.records if one.name.startswith("opentelemetry")] == []


def test_the_end_waits_for_no_exporter_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "FLUSH_S", 0.05)
    stuck = Stuck()
    with observed(SpansDropped) as events, tracing(ON, stuck):
        attempts(300)
    stuck.released.set()

    assert [one.code for one in events.of(SpansDropped)] == ["not_sent_in_time"]


def test_nothing_is_recorded_after_the_end() -> None:
    exporter = InMemorySpanExporter()
    with tracing(ON, exporter):
        attempts(1)
    attempts(1)

    assert len(exporter.get_finished_spans()) == 2


def test_a_submit_whose_parent_is_not_sampled_passes_that_on() -> None:
    parent = read_stored("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00 a=1")
    with tracing(ON, Broken()):
        recorder = recorder_in_use(ON)
        assert recorder is not None
        sent = recorder.begin_submit("j1", parent)
    assert parent is not None
    assert (sent.trace_id, sent.flags, sent.state) == (parent.trace_id, 0, "a=1")
    assert sent.span_id != parent.span_id
