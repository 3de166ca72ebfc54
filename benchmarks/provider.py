"""A stand-in of Claude and mem0's platform that is as fast as possible.

`python -m benchmarks.provider PORT_FILE TIMING [LIMIT]` serves both on one port; the last two are
JSON, and without LIMIT Claude takes all calls. It checks nothing and stores nothing, so that its
own cost does not limit a design. The strict stand-ins of the tests are in `tests.kit`.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.rate_limit import LimitedCalls, RateLimit

MEMORIES = 3
_TEXT = "A comfortable room has about 21 °C, which you told me that you prefer. "
#: What the extraction model of a self-hosted mem0 answers.
_FACTS = json.dumps({"memory": [{"id": "0", "text": "The user prefers degrees in Celsius"}]})
_EXTRACTS = b"You are a Memory Extractor"
_USAGE = {"input_tokens": 100, "output_tokens": 80}
_BACKLOG = 4096


@dataclass(frozen=True)
class AnswerTiming:
    """How long the providers take: a recall, Claude's first delta, and the gap between deltas.

    Claude takes up to `spread_ms` longer, at random, so that jobs that started together do not end
    together.
    """

    model_ms: float = 0.0
    recall_ms: float = 0.0
    deltas: int = 4
    gap_ms: float = 0.0
    spread_ms: float = 0.0

    @property
    def first_ms(self) -> float:
        """Return the ms of a recall and of Claude until its first delta."""
        return self.recall_ms + self.model_ms

    @property
    def whole_ms(self) -> float:
        """Return the ms of a recall and of Claude until the end of its answer."""
        return self.first_ms + self.gap_ms * (self.deltas - 1)

    @property
    def text(self) -> str:
        """Return the whole answer of Claude."""
        return _TEXT * self.deltas

    def as_json(self) -> str:
        """Return it as the argument of this program."""
        return json.dumps(asdict(self))


def _sse(kind: str, **fields: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def _message(**fields: object) -> dict[str, object]:
    named = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5"}
    return named | {"stop_sequence": None, "usage": _USAGE} | fields


def _stream(text: str, timing: AnswerTiming) -> list[bytes]:
    """Return the parts of a streamed answer, one a delta; the first and the last hold the rest."""
    start = _sse("message_start", message=_message(content=[], stop_reason=None))
    start += _sse("content_block_start", index=0, content_block={"type": "text", "text": ""})
    delta = {"type": "text_delta", "text": text}
    parts = [_sse("content_block_delta", index=0, delta=delta)] * timing.deltas
    why = {"stop_reason": "end_turn", "stop_sequence": None}
    end = _sse("content_block_stop", index=0) + _sse("message_delta", delta=why, usage=_USAGE)
    end += _sse("message_stop")
    parts[0], parts[-1] = start + parts[0], parts[-1] + end
    whole = _answer("text/event-stream; charset=utf-8", "".join(parts))
    if not timing.gap_ms:
        return [whole]
    sent = [part.encode() for part in parts]
    return [whole[: len(whole) - sum(map(len, sent[1:]))], *sent[1:]]


def _whole(timing: AnswerTiming) -> bytes:
    content = [{"type": "text", "text": timing.text}]
    return _answer(
        "application/json", json.dumps(_message(content=content, stop_reason="end_turn"))
    )


def _found(body: bytes) -> bytes:
    owner = json.loads(body)["filters"]["user_id"]
    rows = [
        {
            "id": f"memory-{number}",
            "memory": f"The user prefers Celsius, said {number} times",
            "user_id": owner,
            "score": 0.9 - number / 10,
            "metadata": {"turn_id": f"j00_{number:032x}", "said_at": "2026-10-01T12:00:00+00:00"},
            "created_at": "2026-10-01T12:00:00+00:00",
        }
        for number in range(MEMORIES)
    ]
    return _answer("application/json", json.dumps({"results": rows}))


def _answer(kind: str, body: str) -> bytes:
    sent = body.encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {len(sent)}\r\n\r\n"
    return head.encode() + sent


_PING = _answer(
    "application/json",
    json.dumps({"status": "ok", "org_id": "o", "project_id": "p", "user_email": "e@example.org"}),
)


_STORED = _answer(
    "application/json",
    json.dumps({"id": "event", "status": "SUCCEEDED", "results": [{"id": "memory-1"}]}),
)


def _accepted(number: int) -> bytes:
    told = {"event_id": f"event-{number}", "status": "PENDING", "message": "queued"}
    return _answer("application/json", json.dumps(told))


class _Answers:
    """The answers of Claude, streamed and whole: the same for every request."""

    def __init__(self, timing: AnswerTiming, calls: LimitedCalls | None = None) -> None:
        self.calls = calls
        self.streamed, self.whole = _stream(_TEXT, timing), [_whole(timing)]
        self.facts = _stream(_FACTS, replace(timing, deltas=1))
        self.model_s, self.recall_s = timing.model_ms / 1000, timing.recall_ms / 1000
        self.gap_s, self.spread_s = timing.gap_ms / 1000, timing.spread_ms / 1000
        self.adds = 0
        self._late = _Late()

    def late_ms(self) -> float:
        """Return by how many ms answers were late on average since the last call."""
        late, self._late = self._late, _Late()
        return late.total_s / max(late.answers, 1) * 1000

    def note(self, due: float) -> None:
        """Count an answer that is sent now and was due then."""
        self._late.total_s += asyncio.get_running_loop().time() - due
        self._late.answers += 1


@dataclass
class _Late:
    """The sum of how late answers were: timers are late, by half a millisecond at least."""

    total_s: float = 0.0
    answers: int = 0


class _Connection(asyncio.Protocol):
    """One connection: one request after the other."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._inbox = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._inbox += data
        head, blank, rest = self._inbox.partition(b"\r\n\r\n")
        if not blank:
            return
        lowered = head.lower()
        _, named, length = lowered.partition(b"content-length:")
        wanted = int(length.split(b"\r\n", 1)[0]) if named else 0
        if len(rest) >= wanted:
            self._inbox = rest[wanted:]
            self._serve(lowered, rest[:wanted])

    def _serve(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"post /v1/messages"):
            if self._takes(extracts=_EXTRACTS in body):
                self._reply(body)
        elif b"/memories/search" in head[:64]:
            self._say([_found(body)], self._answers.recall_s)
        elif b"/memories/add" in head[:64]:
            self._answers.adds += 1
            self._say([_accepted(self._answers.adds)], 0.0)
        elif head.startswith(b"get /v1/event/"):
            self._say([_STORED], 0.0)
        else:
            self._say([self._figure(head)], 0.0)

    def _reply(self, body: bytes) -> None:
        """Answer as Claude does."""
        streamed = b'"stream":true' in body.replace(b" ", b"")
        parts = self._answers.streamed if streamed else self._answers.whole
        if _EXTRACTS in body:
            parts = self._answers.facts
        if self._answers.calls is not None:
            parts = self._limited(self._answers.calls, parts)
        longer_s = random.uniform(0, self._answers.spread_s)
        self._say(parts, self._answers.model_s + longer_s)

    def _figure(self, head: bytes) -> bytes:
        """Return a figure of this stand-in, or what any other call of mem0's platform is told."""
        calls = self._answers.calls
        if head.startswith(b"get /_limit") and calls is not None:
            told = {
                "served": calls.served,
                "refused": calls.refused,
                "extractions": calls.extractions,
                "produced": calls.produced,
            }
            return _answer("application/json", json.dumps(told))
        if head.startswith(b"get /_late"):
            return _answer("text/plain", str(self._answers.late_ms()))
        if head.startswith(b"get /_adds"):
            return _answer("text/plain", str(self._answers.adds))
        return _PING

    def _takes(self, *, extracts: bool) -> bool:
        """Return whether the rate limit takes one more call; answer it if not."""
        calls, now = self._answers.calls, asyncio.get_running_loop().time()
        if calls is None or calls.takes(now, _USAGE["input_tokens"], extracts=extracts):
            return True
        said = {"type": "error", "error": {"type": "rate_limit_error", "message": "too much"}}
        refusal = _answer("application/json", json.dumps(said)).replace(b"200 OK", b"429 No", 1)
        self._say([_with_headers(refusal, calls.headers(now, _USAGE["input_tokens"]))], 0.0)
        return False

    def _limited(self, calls: LimitedCalls, parts: Sequence[bytes]) -> list[bytes]:
        """Count the output of an answer half way through, and tell what is left of the limit."""
        loop, answers = asyncio.get_running_loop(), self._answers
        half_s = answers.model_s + answers.gap_s * (len(parts) - 1) / 2
        loop.call_later(half_s, self._produce, calls)
        headers = calls.headers(loop.time(), 0)
        return [_with_headers(parts[0], headers), *parts[1:]]

    def _produce(self, calls: LimitedCalls) -> None:
        calls.produce(asyncio.get_running_loop().time(), _USAGE["output_tokens"])

    def _say(self, parts: Sequence[bytes], after_s: float) -> None:
        """Send each part at its own time, so that a late one delays no other."""
        loop = asyncio.get_running_loop()
        first = loop.time() + after_s
        if not after_s:
            self._transport.write(parts[0])
        else:
            loop.call_at(first, self._begin, parts[0], first)
        if len(parts) > 1:
            loop.call_at(first + self._answers.gap_s, self._go_on, parts, 1, first)

    def _begin(self, part: bytes, due: float) -> None:
        self._answers.note(due)
        self._transport.write(part)

    def _go_on(self, parts: Sequence[bytes], number: int, first: float) -> None:
        self._transport.write(parts[number])
        if number + 1 < len(parts):
            due = first + (number + 1) * self._answers.gap_s
            asyncio.get_running_loop().call_at(due, self._go_on, parts, number + 1, first)


def _with_headers(answer: bytes, headers: str) -> bytes:
    status, end, rest = answer.partition(b"\r\n")
    return status + end + headers.encode() + rest


async def _serve(port_file: Path, timing: AnswerTiming, limit: RateLimit | None) -> None:
    loop = asyncio.get_running_loop()
    answers = _Answers(timing, LimitedCalls(limit, loop.time()) if limit else None)
    server = await loop.create_server(
        lambda: _Connection(answers), "127.0.0.1", 0, backlog=_BACKLOG
    )
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(server.sockets[0].getsockname()[1]))
    draft.replace(port_file)  # atomically: nobody reads half a number
    await server.serve_forever()


if __name__ == "__main__":
    told = RateLimit.of(sys.argv[3]) if len(sys.argv) > 3 else None
    asyncio.run(_serve(Path(sys.argv[1]), AnswerTiming(**json.loads(sys.argv[2])), told))
