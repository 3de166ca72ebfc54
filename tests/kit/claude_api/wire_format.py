"""The wire format of Anthropic's Messages API: what a request must be and an answer looks like."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
JSON_HEADERS = {"content-type": "application/json"}

RATE_LIMIT_HEADERS = {
    f"anthropic-ratelimit-{what}-{field}": value
    for what in ("requests", "tokens", "input-tokens", "output-tokens")
    for field, value in (
        ("limit", "1000000000"),  # so much that no test waits for it
        ("remaining", "999999999"),
        ("reset", "2026-10-01T12:01:00Z"),
    )
}

#: The error type that the API names for each status.
ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}

#: What the current models refuse with a 400.
GONE_PARAMETERS = ("temperature", "top_p", "top_k")

Json = dict[str, Any]


def encoded(value: object) -> bytes:
    """Return compact JSON."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def sse(name: str, value: object) -> bytes:
    """Return one server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), encoded(value))


PING = sse("ping", {"type": "ping"})


def error_body(error_type: str, message: str, code: str | None = None) -> Json:
    """Return the body of an error, which is also the content of an `error` event."""
    error: Json = {"type": error_type, "message": message}
    if code is not None:
        error["details"] = {"error_code": code}
    return {"type": "error", "error": error}


def told(body: Json) -> tuple[str, ...]:
    """Return every text that a request tells the model, in order."""
    return tuple(
        text
        for content in (body.get("system", ""), *(m["content"] for m in body["messages"]))
        for text in _texts(content)
    )


def _texts(content: str | Sequence[Json]) -> Sequence[str]:
    if isinstance(content, str):
        return (content,) if content else ()
    return [block["text"] for block in content if block["type"] == "text"]


def tokens(*texts: str) -> int:
    """Return about how many tokens some texts are."""
    return sum(1 + len(text) // 4 for text in texts)


def usage_of(counted: Json, output: str) -> Json:
    """Return what one answer costs, its input counted already."""
    return {
        **counted,
        "output_tokens": tokens(output),
        "service_tier": "standard",
    }


def objection(headers: Mapping[str, str], body: Json) -> tuple[int, str] | None:
    """Return the status and reason with which the API refuses a request, if it does."""
    if not (headers.get("authorization", "").startswith("Bearer ") or headers.get("x-api-key")):
        return 401, "no credential"
    if "anthropic-version" not in headers:
        return 400, "anthropic-version: header is required"
    return _objection_to(body)


def _objection_to(body: Json) -> tuple[int, str] | None:
    for field in ("model", "messages"):
        if not body.get(field):
            return 400, f"{field}: field required"
    for field in GONE_PARAMETERS:
        if field in body:
            return 400, f"{field}: no longer supported"
    if body["messages"][0]["role"] != "user":
        return 400, "messages: first message must use the user role"
    if not all(text.strip() for text in told(body)):
        return 400, "text content blocks must be non-empty"
    return None


def pieces_of(text: str, count: int) -> list[str]:
    """Cut a text into at most `count` pieces of about the same length."""
    size = max(1, -(-len(text) // max(1, count)))
    return [text[at : at + size] for at in range(0, len(text), size)]


@functools.lru_cache(maxsize=256)
def block_events(index: int, kind: str, pieces: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the events of one block of the content: `text`, `thinking` or an unknown kind."""
    start = {"type": kind, kind: ""} | ({"signature": ""} if kind == "thinking" else {})
    deltas = [{"type": f"{kind}_delta", kind: piece} for piece in pieces]
    if kind == "thinking":
        deltas.append({"type": "signature_delta", "signature": "c2lnbmVk"})
    return (
        _block_event("start", index, content_block=start),
        *(_block_event("delta", index, delta=delta) for delta in deltas),
        _block_event("stop", index),
    )


def _block_event(what: str, index: int, **fields: object) -> bytes:
    name = f"content_block_{what}"
    return sse(name, {"type": name, "index": index, **fields})


def message(message_id: str, model: str, usage: Json | None, **fields: object) -> Json:
    """Return a message; `fields` are its content and how it stopped."""
    return {
        "id": message_id,
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
        **fields,
    }


def model_listing(model: str, lifecycle: str) -> Json:
    """Return what the API knows of a model."""
    return {
        "type": "model",
        "id": model,
        "display_name": model,
        "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": lifecycle,
        "retires_at": None if lifecycle == "active" else "2026-11-30T00:00:00Z",
    }


def message_start(message_id: str, model: str, usage: Json | None) -> bytes:
    """Return the first event, with the input counted and hardly any output."""
    begun = message(message_id, model, usage and {**usage, "output_tokens": 1})
    return sse("message_start", {"type": "message_start", "message": begun})


def message_end(
    stop_reason: object, stop_details: object, usage: Json | None
) -> tuple[bytes, bytes]:
    """Return the last two events: why it stopped with the totals, then the stop itself."""
    delta = {"stop_reason": stop_reason, "stop_sequence": None, "stop_details": stop_details}
    return (
        sse("message_delta", {"type": "message_delta", "delta": delta, "usage": usage}),
        sse("message_stop", {"type": "message_stop"}),
    )
