"""Turns events into spans: which spans there are, and what each of them says.

A subscriber of the Observer port. A span is made at its end, out of values that events carry, and
so of nothing that anybody wrote. Names of attributes are those of OpenTelemetry's semantic
conventions: `messaging.*` of version 1.44, `gen_ai.*` of the GenAI conventions 0.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from afterword.shared import events
from afterword.shared.clock import unix_ns
from afterword.shared.events import Context, ObserverEvent
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.trace_context import (
    NO_SPAN,
    SAMPLED,
    TraceContext,
    new_trace,
    read_stored,
    span_id_of,
    trace_of,
)

SEND = f"send {REPLIES}"
WAIT = f"wait {REPLIES}"
PROCESS = f"process {REPLIES}"
RECALL = "search_memory mem0"
PUBLISH = "publish reply"
CHAT = "chat"
STORE = f"process {MEMORIES}"
REPLAY = "replay run"
LETTER = "replay letter"

#: How many submits, attempts or writes may be open in a process; beyond, the oldest get no span.
MOST_OPEN = 10_000
_MOST_CHARACTERS = 200

Value: TypeAlias = str | int | float | bool | tuple[str, ...]
Attributes: TypeAlias = Mapping[str, Value]
_Open = TypeVar("_Open")


class Kind(StrEnum):
    """The role of a span, in OpenTelemetry's words."""

    INTERNAL = "internal"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span that has ended; `error` is a fixed word, and empty if nothing went wrong."""

    name: str
    kind: Kind
    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    end_ns: int
    attributes: Attributes
    links: tuple[TraceContext, ...] = ()
    first_text_ns: int = 0
    error: str = ""


@dataclass(slots=True)
class _Begun:
    """A span that has not ended yet."""

    context: TraceContext
    parent: TraceContext | None
    start_ns: int
    attributes: dict[str, Value]
    links: tuple[TraceContext, ...] = ()
    recall_code: str = ""


#: Whether a span of this name, in this trace and under this parent, is recorded.
Sampler: TypeAlias = Callable[[str, str, TraceContext | None], bool]


class SpanRecorder:
    """Passes each span on to `export` when it ends; `model_server` is where models are called."""

    def __init__(
        self,
        export: Callable[[Span], object],
        sampler: Sampler,
        model_server: Attributes | None = None,
        now_ns: Callable[[], int] = unix_ns,
    ) -> None:
        self._export = export
        self._sampler = sampler
        self._model_server = model_server or {}
        self._now_ns = now_ns
        self._submits: dict[str, _Begun] = {}
        self._attempts: dict[str, _Begun] = {}
        self._writes: dict[str, _Begun] = {}
        self._replays: dict[str, _Begun] = {}
        self._handlers: dict[type[ObserverEvent], Callable[[Any, Context], None]] = {
            events.JobSubmitted: self._submitted,
            events.JobRefused: self._refused,
            events.JobClaimed: self._claimed,
            events.RecallFailed: self._recall_failed,
            events.RecallFinished: self._recalled,
            events.ModelAnswered: self._answered,
            events.ModelFailed: self._model_failed,
            events.ReplyPublished: self._published,
            **{kind: self._attempt_ends(word) for kind, word in _ATTEMPT_ENDS.items()},
            events.TurnBegun: self._write_begun,
            **{kind: self._write_ends(word) for kind, word in _WRITE_ENDS.items()},
            events.ReplayBegun: self._replay_begun,
            events.DeadLetterReplayed: self._replayed,
            events.ReplayEnded: self._replay_ended,
        }

    @property
    def kinds(self) -> tuple[type[ObserverEvent], ...]:
        """Return the classes of events that spans are made of."""
        return tuple(self._handlers)

    def hear(self, event: ObserverEvent, context: Context) -> None:
        """Make the spans that end with an event."""
        self._handlers[type(event)](event, context)

    # -- submits

    def begin_submit(self, job_id: str, parent: TraceContext | None) -> TraceContext:
        """Begin the span of a submit; return its context, which the job's record keeps."""
        trace_id = parent.trace_id if parent else trace_of(job_id).trace_id
        recorded = self._sampler(SEND, trace_id, parent)
        own = TraceContext(
            trace_id,
            span_id_of("send", job_id),
            (parent.flags if parent else 0) & ~SAMPLED | recorded,
            parent.state if parent else "",
        )
        if recorded:
            _keep(self._submits, job_id, _Begun(own, parent, self._now_ns(), _sending(REPLIES)))
        return own

    def _submitted(self, event: events.JobSubmitted, context: Context) -> None:
        if begun := self._submits.pop(context.job_id, None):
            begun.attributes["messaging.message.id"] = event.accepted_as
            self._end(SEND, Kind.PRODUCER, begun)

    def _refused(self, event: events.JobRefused, context: Context) -> None:
        if begun := self._submits.pop(context.job_id, None):
            self._end(SEND, Kind.PRODUCER, begun, error=event.error)

    # -- attempts at a job

    def _claimed(self, event: events.JobClaimed, context: Context) -> None:
        stored = read_stored(context.trace) or trace_of(context.job_id)
        parent = None if stored.span_id == NO_SPAN else stored
        self._attempts.pop(context.job_id, None)  # one that was lost: its span has no end
        if not self._sampler(PROCESS, stored.trace_id, parent):
            return
        now_ns = self._now_ns()
        own = _sibling(stored, span_id_of("attempt", context.job_id, event.fence))
        links = [parent] if parent else []
        links += filter(None, map(read_stored, event.joined.splitlines()))
        if event.previous:
            links.append(_sibling(own, span_id_of("attempt", context.job_id, event.previous)))
        attributes = _processing(REPLIES, context) | {
            "messaging.message.id": context.job_id,
            "afterword.attempt": context.attempt,
            "afterword.snoozes": event.snoozes,
        }
        begun = _Begun(own, parent, now_ns, attributes, tuple(links))
        _keep(self._attempts, context.job_id, begun)
        if not event.previous:
            wait = _sibling(own, span_id_of("wait", context.job_id))
            queued_ns = round(event.queued_s * 1e9)
            waited = _Begun(wait, parent or own, now_ns - queued_ns, _about(REPLIES))
            self._end(WAIT, Kind.INTERNAL, waited)

    def _recall_failed(self, event: events.RecallFailed, context: Context) -> None:
        if attempt := self._attempts.get(context.job_id):
            attempt.recall_code = event.code

    def _recalled(self, event: events.RecallFinished, context: Context) -> None:
        attempt = self._attempts.get(context.job_id)
        if attempt is None or event.status == "off":
            return
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": "search_memory",
            "gen_ai.provider.name": "mem0",
            "gen_ai.memory.record.count": event.kept,
            "afterword.memory": event.status,
            "afterword.memories_dropped": event.dropped,
        }
        step = self._child(attempt, "recall", event.duration_s, attributes)
        self._end(RECALL, Kind.CLIENT, step, error=attempt.recall_code)
        attempt.attributes["afterword.memory"] = event.status

    def _answered(self, event: events.ModelAnswered, context: Context) -> None:
        attempt = self._attempts.get(context.job_id)
        if attempt is None:
            return
        read, written = event.cache_read_tokens, event.cache_write_tokens
        step = self._model_call(attempt, event.asked_model or event.model, event)
        step.attributes |= {
            "gen_ai.response.model": _clean(event.model),
            "gen_ai.response.finish_reasons": (_clean(event.stop_reason),),
            "gen_ai.response.time_to_first_chunk": event.first_text_s,
            "gen_ai.usage.input_tokens": event.input_tokens + read + written,
            "gen_ai.usage.output_tokens": event.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": read,
            "gen_ai.usage.cache_write.input_tokens": written,
        }
        first_text_ns = step.start_ns + round(event.first_text_s * 1e9)
        self._end(_chat(step), Kind.CLIENT, step, first_text_ns=first_text_ns)

    def _model_failed(self, event: events.ModelFailed, context: Context) -> None:
        if attempt := self._attempts.get(context.job_id):
            step = self._model_call(attempt, event.model, event)
            self._end(_chat(step), Kind.CLIENT, step, error=event.code)

    def _model_call(
        self, attempt: _Begun, model: str, event: events.ModelAnswered | events.ModelFailed
    ) -> _Begun:
        attributes: dict[str, Value] = {
            "gen_ai.operation.name": CHAT,
            "gen_ai.provider.name": "anthropic",
            "gen_ai.request.model": _clean(model),
            "gen_ai.request.stream": True,
            **self._model_server,
        }
        if event.request_id:
            attributes["afterword.request_id"] = _clean(event.request_id)
        return self._child(attempt, f"model {self._now_ns()}", event.duration_s, attributes)

    def _published(self, event: events.ReplyPublished, context: Context) -> None:
        attempt = self._attempts.pop(context.job_id, None)
        if attempt is None:
            return
        attributes = _sending(MEMORIES) if not event.not_remembered else {}
        attributes["afterword.not_remembered"] = event.not_remembered or "no"
        attributes["messaging.message.id"] = context.job_id
        step = self._child(attempt, "publish", event.publish_s, attributes)
        publish = span_id_of("publish", context.job_id)
        step.context = _sibling(attempt.context, publish)
        kind = Kind.INTERNAL if event.not_remembered else Kind.PRODUCER
        self._end(PUBLISH, kind, step)
        attempt.attributes["afterword.outcome"] = "replied"
        attempt.attributes["afterword.overhead_s"] = event.overhead_s
        self._end(PROCESS, Kind.CONSUMER, attempt)

    def _attempt_ends(self, outcome: str) -> Callable[[Any, Context], None]:
        def ended(event: Any, context: Context) -> None:
            if attempt := self._attempts.pop(context.job_id, None):
                attempt.attributes["afterword.outcome"] = outcome
                self._end(PROCESS, Kind.CONSUMER, attempt, error=_noted(attempt, event))

        return ended

    # -- memory writes

    def _write_begun(self, event: events.TurnBegun, context: Context) -> None:
        self._writes.pop(context.lane, None)
        links = tuple(filter(None, map(self._put_by, event.steps.split())))
        now_ns = self._now_ns()
        own = new_trace("write", context.job_id, str(now_ns))
        # Its trace is one of its own, recorded if what it is linked to is.
        if not (any(one.sampled for one in links) if links else self._root(STORE, own.trace_id)):
            return
        attributes = _processing(MEMORIES, context) | {
            "messaging.batch.message_count": event.turns,
            "afterword.attempt": context.attempt,
        }
        begun = _Begun(replace(own, flags=SAMPLED), None, now_ns, attributes, links)
        _keep(self._writes, context.lane, begun)

    def _put_by(self, step: str) -> TraceContext | None:
        """Return the span of the step that put a turn into its lane."""
        name, job_id, stored = step.split("/", 2)
        found = read_stored(stored)
        if name == "publish":
            if found is None:
                found = trace_of(job_id)
                found = replace(found, flags=int(self._root(PROCESS, found.trace_id)))
            return replace(found, span_id=span_id_of("publish", job_id))
        return found

    def _write_ends(self, outcome: str) -> Callable[[Any, Context], None]:
        def ended(event: Any, context: Context) -> None:
            if write := self._writes.pop(context.lane, None):
                write.attributes["afterword.outcome"] = outcome or str(event.outcome)
                if isinstance(event, events.TurnSettled):
                    write.attributes["gen_ai.memory.record.count"] = event.memories
                    write.attributes["afterword.age_s"] = event.age_s
                self._end(STORE, Kind.CONSUMER, write, error=_noted(write, event))

        return ended

    # -- replays

    def _replay_begun(self, event: events.ReplayBegun, _: Context) -> None:
        now_ns = self._now_ns()
        own = new_trace("replay", event.run, str(now_ns))
        if self._root(REPLAY, own.trace_id):
            begun = _Begun(replace(own, flags=SAMPLED), None, now_ns, {"afterword.run": event.run})
            _keep(self._replays, event.run, begun)

    def _replayed(self, event: events.DeadLetterReplayed, context: Context) -> None:
        run = self._replays.get(event.run)
        if run is None:
            return
        attributes = _sending(event.queue) | {
            "messaging.message.id": context.job_id,
            "afterword.run": event.run,
            "afterword.outcome": event.outcome,
        }
        letter = self._child(run, f"letter {context.job_id}", event.duration_s, attributes)
        letter.links = (self._died(event, context),)
        self._end(LETTER, Kind.PRODUCER, letter)

    def _died(self, event: events.DeadLetterReplayed, context: Context) -> TraceContext:
        """Return a span in the trace of what became a dead letter."""
        found = read_stored(event.trace) or trace_of(context.job_id)
        step = "publish" if event.queue == MEMORIES else "wait"
        return replace(found, span_id=span_id_of(step, context.job_id))

    def _replay_ended(self, event: events.ReplayEnded, _: Context) -> None:
        if run := self._replays.pop(event.run, None):
            run.attributes["afterword.outcome"] = event.outcome
            if event.code:
                run.attributes["afterword.code"] = event.code
            self._end(REPLAY, Kind.INTERNAL, run, error=event.code)

    # -- all

    def _root(self, name: str, trace_id: str) -> bool:
        return self._sampler(name, trace_id, None)

    def _child(
        self, attempt: _Begun, step: str, duration_s: float, attributes: dict[str, Value]
    ) -> _Begun:
        """Return a step of an attempt that ends now."""
        own = _sibling(attempt.context, span_id_of(step, attempt.context.span_id))
        start_ns = self._now_ns() - round(duration_s * 1e9)
        return _Begun(own, attempt.context, start_ns, attributes)

    def _end(
        self, name: str, kind: Kind, begun: _Begun, *, error: str = "", first_text_ns: int = 0
    ) -> None:
        if error:
            begun.attributes["error.type"] = error
        self._export(
            Span(
                name=name,
                kind=kind,
                context=begun.context,
                parent=begun.parent,
                start_ns=begun.start_ns,
                end_ns=max(begun.start_ns, self._now_ns()),
                attributes=begun.attributes,
                links=begun.links,
                first_text_ns=first_text_ns,
                error=error,
            )
        )


#: How an attempt at a job ends without a reply.
_ATTEMPT_ENDS: dict[type[ObserverEvent], str] = {
    events.JobRetried: "retried",
    events.JobSnoozed: "snoozed",
    events.JobReleased: "released",
    events.JobGivenUp: "given_up",
    events.JobReturned: "returned",
    events.JobOvertaken: "overtaken",
}

#: How an attempt to store turns ends; a settled one says so itself.
_WRITE_ENDS: dict[type[ObserverEvent], str] = {
    events.TurnSettled: "",
    events.TurnAccepted: "accepted",
    events.TurnPostponed: "postponed",
    events.TurnReturned: "returned",
    events.BatchSplit: "split",
    events.TurnBuried: "buried",
    events.LaneOvertaken: "overtaken",
}

#: Nothing went wrong with these, whatever code they bear.
_NO_FAILURES = (events.JobReleased, events.TurnAccepted, events.TurnSettled)


def _noted(begun: _Begun, event: Any) -> str:
    """Note why an attempt ended, and what comes next; return its error."""
    if (delay_s := getattr(event, "delay_s", None)) is not None:
        begun.attributes["afterword.delay_s"] = delay_s
    code: str = getattr(event, "code", "")
    if code:
        begun.attributes["afterword.code"] = code
    return "" if isinstance(event, _NO_FAILURES) else code


def _about(queue: str) -> dict[str, Value]:
    return {"messaging.system": "afterword", "messaging.destination.name": queue}


def _sending(queue: str) -> dict[str, Value]:
    return _about(queue) | {
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
    }


def _processing(queue: str, context: Context) -> dict[str, Value]:
    return _about(queue) | {
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.client.id": context.worker,
    }


def _chat(call: _Begun) -> str:
    return f"{CHAT} {call.attributes['gen_ai.request.model']}"


def _sibling(one: TraceContext, span_id: str) -> TraceContext:
    """Return another recorded span of the same trace."""
    return replace(one, span_id=span_id, flags=one.flags | SAMPLED)


def _clean(text: str) -> str:
    """Return a name as an attribute can hold it: a provider or a job may give any."""
    return "".join(one if one.isprintable() else "?" for one in text[:_MOST_CHARACTERS])


def _keep(kept: dict[str, _Open], name: str, begun: _Open) -> None:
    if len(kept) >= MOST_OPEN:
        kept.pop(next(iter(kept), ""), None)
    kept[name] = begun
