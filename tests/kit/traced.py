"""Spans as a test reads them: recorded in this process, with the exporter that keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from afterword.shared import traces
from afterword.shared.settings import Settings
from afterword.shared.traces import close_traces, tracing


class Traced:
    """What was exported once the recording is over; `end` ends it."""

    def __init__(self, exporter: InMemorySpanExporter) -> None:
        self._exporter = exporter

    def end(self) -> Sequence[ReadableSpan]:
        """End the recording; return all spans."""
        close_traces()
        return self._exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """End the recording; return the spans of one name."""
        return [span for span in self.end() if span.name == name]


@contextmanager
def traced(settings: Settings) -> Iterator[Traced]:
    """Record the spans of this process until the context is left, or `end` is called."""
    exporter = InMemorySpanExporter()
    with pytest.MonkeyPatch.context() as patch, _recording(settings, exporter):
        patch.setattr(traces, "FLUSH_S", 60.0)  # however busy the machine is
        yield Traced(exporter)


def _recording(settings: Settings, exporter: InMemorySpanExporter) -> AbstractContextManager[None]:
    return tracing(settings.model_copy(update={"traces": True}), exporter)


def ids_of(span: ReadableSpan) -> tuple[int, int]:
    """Return the ids of a span's trace and of the span."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def links_of(span: ReadableSpan) -> list[tuple[int, int]]:
    """Return the ids of the spans that a span is linked to."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]
