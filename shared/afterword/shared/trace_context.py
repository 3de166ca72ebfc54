"""Where a job stands in the trace of its caller: the W3C trace context, and ids made of others.

Ids of spans are made of the ids of jobs and of their attempts. So each process can name a span that
another one exports, also one that was lost with its process, and nothing but the caller's context
has to be stored. See https://www.w3.org/TR/trace-context/ for the format.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

SAMPLED = 0x01
_KNOWN_FLAGS = 0x03  # sampled, and a random trace id

#: Stands in place of the id of a span for a trace that has none yet.
NO_SPAN = "0" * 16
_NO_TRACE = "0" * 32

_MAX_STATE_CHARACTERS = 512
_MAX_STATE_MEMBERS = 32

#: Keys that propagators of OpenTelemetry write: baggage may hold anything, and goes nowhere.
_KEYS = frozenset({"traceparent", "tracestate", "baggage"})

# A later version may append more; the first four parts stay (section 3.2.4 of the standard).
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span as others refer to it: its trace, its id, whether it is sampled, and its state."""

    trace_id: str
    span_id: str = NO_SPAN
    flags: int = 0
    state: str = ""

    @property
    def sampled(self) -> bool:
        """Return whether this span is recorded."""
        return bool(self.flags & SAMPLED)

    @property
    def stored(self) -> str:
        """Return it as a record holds it: `traceparent`, and after a space `tracestate`."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x} {self.state}".rstrip()


def context_of(carrier: object) -> TraceContext | None:
    """Return the context in the headers `traceparent` and `tracestate`, None if it is empty.

    Raises a `ValueError`, which repeats nothing of it, for whatever the standard does not allow.
    """
    if isinstance(carrier, TraceContext):
        carrier = {"traceparent": carrier.stored.partition(" ")[0], "tracestate": carrier.state}
    if not isinstance(carrier, Mapping):
        raise _refusal("must be a mapping with a traceparent, as OpenTelemetry's inject fills it")
    if not _KEYS.issuperset(carrier):
        raise _refusal("must have the keys traceparent and tracestate only")
    parent, state = carrier.get("traceparent"), carrier.get("tracestate")
    if parent is None and state is None:
        return None
    found = _PARENT.fullmatch(parent) if isinstance(parent, str) else None
    if found is None or not _is_known(*found.groups()):
        raise _refusal("must have a traceparent as W3C Trace Context defines it")
    if state is not None and not _is_state(state):
        raise _refusal("must have a tracestate as W3C Trace Context defines it")
    return TraceContext(found[2], found[3], int(found[4], 16) & _KNOWN_FLAGS, (state or "").strip())


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError("afterword", "{reason}", {"reason": reason})


#: A field that takes the headers of a trace context.
Trace = Annotated[TraceContext | None, BeforeValidator(context_of)]


def _is_known(version: str, trace_id: str, span_id: str, _: str, rest: str | None) -> bool:
    return (
        version != "ff"
        and not (version == "00" and rest)
        and trace_id != _NO_TRACE
        and span_id != NO_SPAN
    )


def _is_state(state: object) -> bool:
    if not isinstance(state, str) or len(state) > _MAX_STATE_CHARACTERS:
        return False
    members = [one.strip(" \t") for one in state.split(",")]
    named = [one for one in members if one]
    return len(named) <= _MAX_STATE_MEMBERS and all(map(_MEMBER.fullmatch, named))


def read_stored(text: str) -> TraceContext | None:
    """Return a context that a record holds; None if there is none, or it cannot be read."""
    parent, _, state = text.partition(" ")
    found = _PARENT.fullmatch(parent)
    if found is None or found[2] == _NO_TRACE:
        return None
    return TraceContext(found[2], found[3], int(found[4], 16) & _KNOWN_FLAGS, state)


def trace_id_in(stored: str) -> str:
    """Return the id of the trace that a stored context belongs to, '' if there is none."""
    return stored[3:35]


def active_context() -> TraceContext | None:
    """Return the span that is active in OpenTelemetry, None if none is, or nobody uses it.

    Where nobody has imported OpenTelemetry no span can be active, so this never imports it.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    try:
        found = api.get_current_span().get_span_context()
    except AttributeError:  # it is only being imported, by another thread
        return None
    if not found.is_valid:
        return None
    return TraceContext(
        f"{found.trace_id:032x}",
        f"{found.span_id:016x}",
        found.trace_flags & _KNOWN_FLAGS,
        found.trace_state.to_header() if found.trace_state else "",
    )


def trace_of(job_id: str) -> TraceContext:
    """Return the trace of a job whose caller has none: always the same for the same job."""
    return TraceContext(_digest("trace", job_id)[:32])


def new_trace(*names: str) -> TraceContext:
    """Return the first span of a trace of its own."""
    made = _digest("own", *names)
    return TraceContext(made[:32], made[32:48])


def span_id_of(step: str, *names: str) -> str:
    """Return the id of the span of one step of a job, of an attempt at it, or of a lane."""
    return _digest(step, *names)[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()
