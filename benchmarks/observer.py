"""Cost of reporting an event, with and without a subscriber."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Sequence
from functools import partial
from time import thread_time

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from afterword.shared.events import (
    JobClaimed,
    LaneClaimed,
    ModelAnswered,
    ModelCalled,
    RecallFinished,
    ReplyPublished,
    StoreAnswered,
    TurnBegun,
    TurnSettled,
)
from afterword.shared.lifecycle import TurnState
from afterword.shared.observer import OBSERVER, Observer, bound
from afterword.shared.settings import Settings
from afterword.shared.traces import tracing
from afterword.workers.metrics import counting
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row

_CALLS, _REPEATS = 20_000, 5
_SPANS = 2_000  # calls, where each makes several spans
#: The most that reporting an event may cost while nobody subscribes to its class, in nanoseconds.
_MOST_NS = 1000
#: The most that counting may add to a job and its turn, in nanoseconds: 2 % of the 1.5 ms of CPU
#: that the job alone takes.
_MOST_COUNTED_NS = 30_000


_TRACED = Settings(redis_url="redis://127.0.0.1", traces=True)
_TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def section(options: Options) -> Finding:
    """Report an event of four fields and one of nine, to nobody and to one subscriber."""
    silent, heard = Observer(), Observer()
    heard.subscribe(lambda _event, _context: None)
    repeats = _REPEATS * options.rounds
    rows = []
    for words, report in (("4 fields", _small), ("9 fields", _large)):
        unheard_ns = _nanoseconds(partial(report, silent), repeats)
        heard_ns = _nanoseconds(partial(report, heard), repeats)
        rows.append(Row(f"event of {words}, nobody subscribes", unheard_ns, "ns", _MOST_NS))
        rows.append(Row(f"event of {words}, one subscriber", heard_ns, "ns"))
    uncounted_ns = _nanoseconds(partial(_job, Observer()), repeats)
    with counting(CollectorRegistry()):
        added_ns = _nanoseconds(partial(_job, OBSERVER), repeats) - uncounted_ns
    rows.append(Row("what counting adds to a job and its turn", added_ns, "ns", _MOST_COUNTED_NS))
    kept = InMemorySpanExporter()
    with tracing(_TRACED, kept):
        _job(OBSERVER)
    spans = kept.get_finished_spans()
    with tracing(_TRACED, _Nowhere()):
        traced_ns = _nanoseconds(partial(_job, OBSERVER), repeats, _SPANS)
    rows.append(Row(f"events of one job, recorded as {len(spans)} spans", traced_ns, "ns"))
    encoded_ns = _nanoseconds(lambda: encode_spans(spans).SerializeToString(), repeats, _SPANS)
    rows.append(Row("spans of one job, encoded for OTLP by a thread", encoded_ns, "ns"))
    return Finding(
        rows=rows,
        text="CPU time, the fastest of many runs: other load only makes runs slower. The "
        "one subscriber does nothing; metrics count the events of a job and of its turn.",
        runs={row.figure: row.value for row in rows},
    )


def _small(observer: Observer) -> None:
    observer.emit(RecallFinished, status="fresh", kept=5, dropped=1, duration_s=0.1)


def _large(observer: Observer) -> None:
    observer.emit(
        ModelAnswered,
        model="claude-sonnet-5-5",
        stop_reason="end_turn",
        input_tokens=1000,
        output_tokens=100,
        cache_read_tokens=0,
        cache_write_tokens=0,
        first_text_s=0.5,
        duration_s=2.0,
        request_id="req_1",
    )


def _job(observer: Observer) -> None:
    with bound(worker="host:1", job_id="j00_1", lane="l00_1", attempt=1, trace=_TRACE):
        _events_of_a_job(observer)


def _events_of_a_job(observer: Observer) -> None:
    observer.emit(JobClaimed, queued_s=0.1, snoozes=0)
    _small(observer)
    observer.emit(ModelCalled, model="claude-sonnet-5-5", canary=False)
    _large(observer)
    observer.emit(ReplyPublished, total_s=2.5, not_remembered="")
    observer.emit(LaneClaimed, turns=1)
    observer.emit(TurnBegun, turns=1, unknown_outcome=False, steps=f"publish/j00_1/{_TRACE}")
    observer.emit(StoreAnswered, outcome="stored", duration_s=0.5)
    observer.emit(
        TurnSettled, outcome=TurnState.STORED, code="", turns=1, memories=1, age_s=3.0
    )  # fmt: skip


def _nanoseconds(report: Callable[[], object], repeats: int, calls: int = _CALLS) -> float:
    taken_s = min(timeit.repeat(report, number=calls, repeat=repeats, timer=thread_time))
    return round(taken_s / calls * 1e9)


class _Nowhere:
    """Takes all spans and sends none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        del spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Do nothing."""


if __name__ == "__main__":
    run_alone(section)
