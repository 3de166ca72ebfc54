"""Exports spans by OTLP over HTTP, as the standard `OTEL_*` variables of OpenTelemetry say.

Off unless `AFTERWORD_TRACES` is on, and then only to the endpoint that is named: nothing goes to a
default one. Spans wait in a bounded queue for a thread that sends them; no job waits for it, and
what does not fit or cannot be sent is dropped and counted.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol
from urllib.parse import urlsplit

from afterword.shared.environment import variable
from afterword.shared.errors import Misconfigured
from afterword.shared.events import SpansDropped, TracesExported
from afterword.shared.installation import install_command
from afterword.shared.observer import Subscription, emit, subscribe, unsubscribe
from afterword.shared.settings import Settings
from afterword.shared.spans import Kind, Span, SpanRecorder
from afterword.shared.trace_context import TraceContext
from afterword.shared.version import __version__

SETTING = variable("traces")
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SAMPLERS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "parentbased_")
    for name in ("always_on", "always_off", "traceidratio")
)
_MAX_QUEUE = 2048

#: The longest that a process waits at its end for its last spans to be sent, in seconds.
FLUSH_S = 2.0

#: The version of the conventions that names of attributes are of.
_SCHEMA = "https://opentelemetry.io/schemas/1.44.0"

#: What the SDK and its exporter log of each batch: we tell once, in one line.
_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.sdk._shared_internal",
)


class Exporter(Protocol):
    """Sends spans, as OpenTelemetry's `SpanExporter` does."""

    def export(self, spans: Any, /) -> Any:
        """Send spans; return a `SpanExportResult`."""

    def shutdown(self) -> None:
        """Send no more."""


@contextmanager
def tracing(settings: Settings, exporter: Exporter | None = None) -> Iterator[None]:
    """Record and export the spans of this process while the context is open, if traces are on.

    `exporter` replaces that of the environment. Raises `Misconfigured` naming a variable.
    """
    traces = _opened(settings, exporter)
    if traces is None:
        yield
        return
    try:
        yield
    finally:
        close_traces()


def recorder_in_use(settings: Settings) -> SpanRecorder | None:
    """Return the recorder of this process, opened when first asked for; None if traces are off."""
    if not settings.traces:
        return None
    traces = _opened(settings, None)
    return None if traces is None else traces.recorder


_lock = threading.Lock()
_in_use: Traces | None = None


def _opened(settings: Settings, exporter: Exporter | None) -> Traces | None:
    global _in_use  # noqa: PLW0603 a process has one, as it has one observer
    if not settings.traces or _is_disabled(os.environ):
        return None
    with _lock:
        if _in_use is None:
            _in_use = Traces(settings, exporter)
            atexit.register(close_traces)
        return _in_use


def close_traces() -> None:
    """Send what is left, for `FLUSH_S` at most, and record no more; nothing if it was not open."""
    global _in_use
    with _lock:
        traces, _in_use = _in_use, None
    if traces is not None:
        atexit.unregister(close_traces)
        traces.close(FLUSH_S)


class Traces:
    """The spans of a process on their way: recorded, queued, sent."""

    def __init__(self, settings: Settings, exporter: Exporter | None) -> None:
        address = "" if exporter else _check(os.environ)
        try:
            import opentelemetry.sdk.trace as sdk
            from opentelemetry import trace as api
            from opentelemetry.context import Context
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.util.instrumentation import InstrumentationScope
        except ImportError:
            hint = install_command("traces")
            raise Misconfigured(SETTING, f"needs OpenTelemetry's SDK: run `{hint}`") from None
        found = Resource.create()
        if str(found.attributes["service.name"]).startswith("unknown_service"):
            found = found.merge(Resource({"service.name": "afterword"}))
        self._resource = found
        self._scope = InstrumentationScope("afterword", __version__, _SCHEMA)
        self._sampler: Any = sdk.TracerProvider(shutdown_on_exit=False).sampler
        # Kept, since an import takes longer than making a span.
        self._api: Any = api
        self._sdk: Any = sdk
        self._no_context = Context()
        self._kinds = {kind: api.SpanKind[kind.name] for kind in Kind}
        self._given = self._taken = self._dropped = 0
        self._room = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", _MAX_QUEUE))
        counted: Any = _Counted(exporter or _otlp_exporter(), self)
        self._processor: Any = BatchSpanProcessor(counted)
        self.recorder = SpanRecorder(self._export, self._sampled, _server(settings))
        self._subscription: Subscription = subscribe(self.recorder.hear, *self.recorder.kinds)
        if address:
            emit(TracesExported, address=address)

    def close(self, timeout_s: float) -> None:
        """Record no more, and send what waits; after `timeout_s` seconds the rest is dropped."""
        unsubscribe(self._subscription)
        last = threading.Thread(target=self._shut_down, name="afterword-traces", daemon=True)
        last.start()
        last.join(timeout_s)
        if last.is_alive():
            self.drop(self._given - self._taken, "not_sent_in_time")

    def _shut_down(self) -> None:
        with _Muted():
            self._processor.shutdown()

    def taken(self, spans: int) -> None:
        """Note that the exporter has taken spans from the queue."""
        self._taken += spans

    def drop(self, spans: int, code: str) -> None:
        """Count spans that nobody will see, and say so: the first time as a warning."""
        if spans > 0:
            first, self._dropped = not self._dropped, self._dropped + spans
            emit(SpansDropped, spans=spans, code=code, first=first)

    def _export(self, span: Span) -> None:
        self._given += 1
        if self._given - self._taken > self._room:  # the queue drops its oldest one
            self.taken(1)
            self.drop(1, "queue_full")
        with _Muted():
            self._processor.on_end(self._readable(span))

    def _sampled(self, name: str, trace_id: str, parent: TraceContext | None) -> bool:
        api, context = self._api, self._no_context
        if parent is not None:
            remote = api.NonRecordingSpan(self._span_context(parent))
            context = api.set_span_in_context(remote, context)
        result = self._sampler.should_sample(context, int(trace_id, 16), name)
        return bool(result.decision.is_sampled())

    def _readable(self, span: Span) -> Any:
        api, sdk = self._api, self._sdk
        named: dict[str, Any] = {}
        if span.error:
            named["status"] = api.Status(api.StatusCode.ERROR, span.error)
        if span.first_text_ns:
            named["events"] = (sdk.Event("afterword.first_text", {}, span.first_text_ns),)
        if span.links:
            named["links"] = [api.Link(self._span_context(one)) for one in span.links]
        return sdk.ReadableSpan(
            span.name,
            context=self._span_context(span.context),
            parent=self._span_context(span.parent) if span.parent else None,
            resource=self._resource,
            attributes=span.attributes,
            kind=self._kinds[span.kind],
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
            **named,
        )

    def _span_context(self, one: TraceContext) -> Any:
        api = self._api
        state = api.TraceState.from_header([one.state]) if one.state else None
        flags = api.TraceFlags(one.flags)
        return api.SpanContext(int(one.trace_id, 16), int(one.span_id, 16), True, flags, state)  # noqa: FBT003


class _Counted:
    """An exporter that counts what another one takes, and what it fails to send."""

    def __init__(self, exporter: Exporter, traces: Traces) -> None:
        self._exporter = exporter
        self._traces = traces

    def export(self, spans: Any) -> Any:
        """Send spans."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        self._traces.taken(len(spans))
        with _Muted():
            try:
                result = self._exporter.export(spans)
            except Exception:  # noqa: BLE001 whatever an exporter raises, spans are lost
                result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            self._traces.drop(len(spans), "not_sent")
        return result

    def shutdown(self) -> None:
        """Send no more."""
        self._exporter.shutdown()


def _otlp_exporter() -> Exporter:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        hint = install_command("traces")
        raise Misconfigured(SETTING, f"needs OpenTelemetry's exporter: run `{hint}`") from None
    return OTLPSpanExporter()


def _is_disabled(env: Mapping[str, str]) -> bool:
    """Return whether the standard variables turn traces off."""
    return (
        env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        or env.get("OTEL_TRACES_EXPORTER", "").strip() == "none"
    )


def _check(env: Mapping[str, str]) -> str:
    """Return the host and port that spans go to; raise `Misconfigured` naming a variable.

    The SDK would go on with a default for each of these, and tell nobody but its log.
    """
    if env.get("OTEL_TRACES_EXPORTER", "otlp").strip() not in ("", "otlp"):
        raise Misconfigured("OTEL_TRACES_EXPORTER", "must be `otlp` or `none`")
    for name in _PROTOCOLS:
        if env.get(name, "") not in ("", "http/protobuf"):
            raise Misconfigured(name, "must be `http/protobuf`")
    sampler = env.get("OTEL_TRACES_SAMPLER", "").strip()
    if sampler and sampler not in _SAMPLERS:
        raise Misconfigured("OTEL_TRACES_SAMPLER", f"must be one of {', '.join(sorted(_SAMPLERS))}")
    if sampler.endswith("traceidratio") and not _is_ratio(env.get("OTEL_TRACES_SAMPLER_ARG", "1")):
        raise Misconfigured("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1")
    room = env.get("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    if not (room.isascii() and room.isdecimal() and int(room)):
        raise Misconfigured("OTEL_BSP_MAX_QUEUE_SIZE", "must be a positive number")
    return _address(env)


def _is_ratio(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _address(env: Mapping[str, str]) -> str:
    name = next((one for one in ENDPOINTS if env.get(one)), None)
    if name is None:
        raise Misconfigured(ENDPOINTS[1], f"must be set: {SETTING} is on, and spans need a place")
    try:
        parts = urlsplit(env[name])
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if not host or scheme not in ("http", "https"):
        raise Misconfigured(name, "must be a URL such as http://127.0.0.1:4318")
    return f"{host}:{port or (443 if scheme == 'https' else 80)}"


def _server(settings: Settings) -> dict[str, str | int]:
    """Return where models are called, as attributes."""
    parts = urlsplit(settings.anthropic_base_url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


class _Quiet(threading.local):
    """Whether what this thread does with spans is our own, so that its log lines are left out."""

    on = False


_QUIET = _Quiet()


class _Muted:
    """Marks what this thread does with spans as our own; cheaper than a generator."""

    def __enter__(self) -> None:
        self._before, _QUIET.on = _QUIET.on, True

    def __exit__(self, *_: object) -> None:
        _QUIET.on = self._before


def _is_not_ours(_: logging.LogRecord) -> bool:
    return not _QUIET.on


for _name in _LOGGERS:
    logging.getLogger(_name).addFilter(_is_not_ours)
