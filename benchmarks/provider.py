"""Claude and mem0's platform as lean as can be, so that no design waits for them.

`python -m benchmarks.provider PORT_FILE [MODEL_MS RECALL_MS]` serves both on one port. It checks
nothing and remembers nothing: what it costs must not show in a figure. Tests use
`tests.standins`, which are strict.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

DELTAS = 4
MEMORIES = 3
_TEXT = "A comfortable room has about 21 °C, which you told me that you prefer. "
_USAGE = {"input_tokens": 100, "output_tokens": 80}
_BACKLOG = 4096


def _sse(kind: str, **fields: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def _message(**fields: object) -> dict[str, object]:
    named = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-5-5"}
    return named | {"stop_sequence": None, "usage": _USAGE} | fields


def _stream() -> bytes:
    pieces = [_sse("message_start", message=_message(content=[], stop_reason=None))]
    pieces.append(_sse("content_block_start", index=0, content_block={"type": "text", "text": ""}))
    delta = {"type": "text_delta", "text": _TEXT}
    pieces += [_sse("content_block_delta", index=0, delta=delta)] * DELTAS
    pieces.append(_sse("content_block_stop", index=0))
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    pieces.append(_sse("message_delta", delta=end, usage=_USAGE))
    pieces.append(_sse("message_stop"))
    return _answer("text/event-stream; charset=utf-8", "".join(pieces))


def _whole() -> bytes:
    content = [{"type": "text", "text": _TEXT * DELTAS}]
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


_STREAMED, _AT_ONCE = _stream(), _whole()
_PING = _answer(
    "application/json",
    json.dumps({"status": "ok", "org_id": "o", "project_id": "p", "user_email": "e@example.org"}),
)


class _Connection(asyncio.Protocol):
    """One connection: requests come one after the other, each in full before its answer."""

    def __init__(self, model_s: float, recall_s: float) -> None:
        self._model_s = model_s
        self._recall_s = recall_s
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
            answer = _STREAMED if b'"stream":true' in body.replace(b" ", b"") else _AT_ONCE
            self._say(answer, self._model_s)
        elif b"/memories/search" in head[:64]:
            self._say(_found(body), self._recall_s)
        else:
            self._say(_PING, 0.0)

    def _say(self, answer: bytes, after_s: float) -> None:
        if after_s:
            asyncio.get_running_loop().call_later(after_s, self._transport.write, answer)
        else:
            self._transport.write(answer)


async def _serve(port_file: Path, model_s: float, recall_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Connection(model_s, recall_s), "127.0.0.1", 0, backlog=_BACKLOG
    )
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(server.sockets[0].getsockname()[1]))
    draft.replace(port_file)  # so that nobody reads half a number
    await server.serve_forever()


if __name__ == "__main__":
    model_ms, recall_ms = (float(each) for each in [*sys.argv[2:], "0", "0"][:2])
    asyncio.run(_serve(Path(sys.argv[1]), model_ms / 1000, recall_ms / 1000))
