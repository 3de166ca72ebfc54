"""What the Claude stand-in can play: one record per answer, faults included, as plain JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain, repeat
from typing import Any

from tests.kit.claude_api import wire_format as wire
from tests.kit.servers.scripted_http_server import LAST_CHUNK, Cue, Step, chunk, head

#: Seconds between two drops of `DRIP` or `PINGS`, unless the play says otherwise.
DRIP_S = 0.02

#: How many pings `ServerFault.PINGS_A_WHILE` is.
PINGS = 20


class ServerFault(StrEnum):
    """What goes wrong; those below the line happen after `ClaudeAnswer.at` events of the answer.

    An answer that is not streamed is one event: only `at=0` can happen to it.
    `LINGER` says everything and does not end the body, or not before `Play.gap_s`.
    """

    SILENCE = "silence"
    CLOSE_FIRST = "close_first"
    RESET_FIRST = "reset_first"
    HTML = "html"
    # ---
    TRUNCATE = "truncate"
    CUT = "cut"
    RESET = "reset"
    STALL = "stall"
    PAUSE = "pause"
    PINGS = "pings"
    PINGS_A_WHILE = "pings_a_while"
    DRIP = "drip"
    ERROR_EVENT = "error_event"
    BAD_JSON = "bad_json"
    BAD_UTF8 = "bad_utf8"
    NO_OBJECT = "no_object"
    HALVES = "halves"
    UNKNOWN_EVENT = "unknown_event"
    UNKNOWN_BLOCK = "unknown_block"
    LINGER = "linger"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaudeAnswer:
    """One answer, or the same one `times` times (`None`: for ever).

    `match` restricts it to requests whose body holds that text. `text=None` leaves the text to
    the stand-in's `reply` function; an empty one means a message without a text block. `usage`
    overwrites the counts; with `usage=None` there are none. With
    `hold` the answer waits until the test releases it, with `ServerFault.PAUSE` in its middle.
    """

    text: str | None = None
    thinking: str | None = None
    stop_reason: Any = "end_turn"
    stop_details: Any = None
    usage: dict[str, Any] | None = field(default_factory=dict)
    deltas: int = 8

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    error_type: str | None = None
    error_code: str | None = None
    error_message: str = "scripted"
    raw_body: str | None = None

    delay_s: float = 0.0
    first_s: float = 0.0
    gap_s: float = 0.0
    hold: bool = False

    fault: ServerFault | None = None
    at: int = 3

    match: str | None = None
    times: int | None = 1

    @property
    def error(self) -> wire.Json:
        """The body of the error that this play answers with."""
        error_type = self.error_type or wire.ERROR_TYPES.get(self.status, "api_error")
        return wire.error_body(error_type, self.error_message, self.error_code)


@dataclass(frozen=True, slots=True)
class Call:
    """What a play is played for: the request's body, the text to say, its id, its input's count."""

    body: wire.Json
    text: str
    request_id: str
    counted: dict[str, int]

    @property
    def streams(self) -> bool:
        """True when the caller wants server-sent events."""
        return bool(self.body.get("stream"))


def steps(play: ClaudeAnswer, call: Call) -> Iterator[Step]:
    """Play one answer."""
    if play.hold:
        yield Cue.HOLD
    if play.delay_s:
        yield play.delay_s
    yield from _EARLY.get(play.fault, _answer)(play, call)


def _silence(_play: ClaudeAnswer, _call: Call) -> Iterator[Step]:
    yield math.inf


def _close_first(_play: ClaudeAnswer, _call: Call) -> Iterator[Step]:
    yield Cue.CLOSE


def _reset_first(_play: ClaudeAnswer, _call: Call) -> Iterator[Step]:
    yield Cue.RESET


def _html(play: ClaudeAnswer, call: Call) -> Iterator[Step]:
    yield _head(play, call, {"content-type": "text/html"})
    yield from _framed([b"<html><body>Sign in to continue</body></html>"])


_EARLY: dict[ServerFault | None, Callable[[ClaudeAnswer, Call], Iterator[Step]]] = {
    ServerFault.SILENCE: _silence,
    ServerFault.CLOSE_FIRST: _close_first,
    ServerFault.RESET_FIRST: _reset_first,
    ServerFault.HTML: _html,
}


def _answer(play: ClaudeAnswer, call: Call) -> Iterator[Step]:
    if play.status != 200:
        body = play.raw_body.encode() if play.raw_body is not None else wire.encoded(play.error)
        yield _head(play, call, wire.JSON_HEADERS)
        yield from _framed([body])
    elif call.streams:
        yield _head(play, call, wire.STREAM_HEADERS)
        yield from _framed(_gathered(_faulty(play, events(play, call))))
    else:
        yield _head(play, call, wire.JSON_HEADERS)
        yield from _framed(_faulty(play, [wire.encoded(whole_message(play, call))]))


def _head(play: ClaudeAnswer, call: Call, headers: dict[str, str]) -> bytes:
    names = {"request-id": call.request_id, "anthropic-organization-id": "org_standin"}
    limits = wire.RATE_LIMIT_HEADERS if play.raw_body is None else {}  # a proxy knows of none
    return head(play.status, headers | names | limits | play.headers)


def events(play: ClaudeAnswer, call: Call) -> Iterator[Step]:
    """Return the events of a whole message, with the waits between them."""
    usage = _usage(play, call)
    yield wire.message_start(f"msg_{call.request_id}", call.body["model"], usage)
    yield wire.PING
    if play.first_s:
        yield play.first_s
    for index, (kind, pieces) in enumerate(_blocks(play, call)):
        first, *rest = wire.block_events(index, kind, pieces)
        yield first
        yield from chain.from_iterable((play.gap_s, event) for event in rest)
    yield from wire.message_end(play.stop_reason, play.stop_details, usage)
    if play.fault is ServerFault.LINGER:
        yield play.gap_s or math.inf


def whole_message(play: ClaudeAnswer, call: Call) -> wire.Json:
    """Return the message that a call without streaming gets."""
    content = [{"type": kind, kind: "".join(pieces)} for kind, pieces in _blocks(play, call)]
    usage = _usage(play, call)
    return wire.message(
        f"msg_{call.request_id}",
        call.body["model"],
        usage,
        content=content,
        stop_reason=play.stop_reason,
        stop_details=play.stop_details,
    )


def _usage(play: ClaudeAnswer, call: Call) -> wire.Json | None:
    if play.usage is None:
        return None
    return wire.usage_of(call.counted, (play.thinking or "") + call.text) | play.usage


def _blocks(play: ClaudeAnswer, call: Call) -> Iterator[tuple[str, tuple[str, ...]]]:
    if play.thinking is not None:
        yield "thinking", (play.thinking,)
    if play.fault is ServerFault.UNKNOWN_BLOCK:
        yield "telepathy", ("not for you",)
    if call.text:
        yield "text", tuple(wire.pieces_of(call.text, play.deltas))


def _faulty(play: ClaudeAnswer, script: Iterable[Step]) -> Iterator[Step]:
    """Let the fault happen after `play.at` events."""
    rest = iter(script)
    sent = 0
    for step in rest:
        if sent == play.at and isinstance(step, bytes) and play.fault in _LATE:
            yield from _LATE[play.fault](_Moment(play, step, rest))
            return
        yield step
        sent += isinstance(step, bytes)


@dataclass(frozen=True, slots=True)
class _Moment:
    """When a fault happens: the event that is due, and what comes after it."""

    play: ClaudeAnswer
    event: bytes
    rest: Iterator[Step]

    @property
    def half(self) -> bytes:
        return self.event[: len(self.event) // 2]

    def after(self, *steps: Step) -> Iterable[Step]:
        """Go on after some steps of another kind."""
        return chain(steps, (self.event,), self.rest)

    def forever(self, event: bytes) -> Iterable[Step]:
        """Send the same again and again."""
        return chain.from_iterable(repeat((event, self.play.gap_s or DRIP_S)))


def _escaped_delta(escapes: str) -> bytes:
    """Return a piece of text that is half a surrogate pair, which no encoder would write."""
    delta = {"type": "text_delta", "text": "?"}
    event = {"type": "content_block_delta", "index": 0, "delta": delta}
    return wire.sse("content_block_delta", event).replace(b"?", escapes.encode())


#: What is sent from the moment of a fault on.
_LATE: dict[ServerFault | None, Callable[[_Moment], Iterable[Step]]] = {
    ServerFault.TRUNCATE: lambda _: (),
    ServerFault.CUT: lambda now: (now.half, Cue.CLOSE),
    ServerFault.RESET: lambda now: (now.half, Cue.RESET),
    ServerFault.STALL: lambda _: (math.inf,),
    ServerFault.PAUSE: lambda now: now.after(Cue.HOLD),
    ServerFault.PINGS: lambda now: now.forever(wire.PING),
    ServerFault.PINGS_A_WHILE: lambda now: now.after(
        *(wire.PING, now.play.gap_s or DRIP_S) * PINGS
    ),
    ServerFault.DRIP: lambda now: now.forever(now.event),
    ServerFault.ERROR_EVENT: lambda now: (wire.sse("error", now.play.error),),
    ServerFault.BAD_JSON: lambda now: now.after(
        b'event: content_block_delta\ndata: {"type": "cont\n\n'
    ),
    ServerFault.BAD_UTF8: lambda now: now.after(
        b'event: content_block_delta\ndata: "\xff\xfe"\n\n'
    ),
    ServerFault.NO_OBJECT: lambda now: now.after(b"event: content_block_delta\ndata: [1, 2]\n\n"),
    ServerFault.HALVES: lambda now: now.after(*map(_escaped_delta, ("\\ud83c", "\\udf21"))),
    ServerFault.UNKNOWN_EVENT: lambda now: now.after(wire.sse("weather", {"type": "weather"})),
}


def _gathered(script: Iterable[Step]) -> Iterator[Step]:
    """Join the bytes between two waits, as one network packet would."""
    packet: list[bytes] = []
    for step in script:
        if isinstance(step, bytes):
            packet.append(step)
        elif step != 0.0:
            yield b"".join(packet)
            yield step
            packet.clear()
    yield b"".join(packet)


def _framed(script: Iterable[Step]) -> Iterator[Step]:
    """Send every piece as a chunk, then the end of the body."""
    for step in script:
        if step != b"":
            yield chunk(step) if isinstance(step, bytes) else step
    yield LAST_CHUNK
