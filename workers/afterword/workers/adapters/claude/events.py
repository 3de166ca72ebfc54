"""Reads one streamed answer of Claude: bytes to events, events to the complete answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from afterword.shared.contracts import Usage
from afterword.shared.errors import BadAnswer, Rejected
from afterword.workers.adapters.claude.errors import api_error
from afterword.workers.adapters.claude.rate_limits import pause_seconds
from afterword.workers.ports import Answer

Event = dict[str, Any]

#: A longer line is an error, so that an endless line cannot fill the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024

#: Stop reasons that can leave no room for text: the same request would end the same way again.
_OUT_OF_ROOM = ("max_tokens", "model_context_window_exceeded")

_USAGE_FIELDS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_write",
}


class EventParser:
    """Splits a byte stream into events, each a line of JSON with a `type`."""

    def __init__(self, request_id: str | None = None) -> None:
        self._request_id = request_id
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes; raise `BadAnswer` for a malformed one."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise BadAnswer("bad_event", request_id=self._request_id)
        for line in lines:
            if line.startswith(b"data:"):
                yield self._event(line[len(b"data:") :])

    def _event(self, line: bytes) -> Event:
        event = _parsed(line)
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise BadAnswer("bad_event", request_id=self._request_id)
        return event


def _parsed(line: bytes) -> object:
    """Parse JSON strictly: half a surrogate pair could not be stored in the ledger."""
    try:
        return from_json(line)
    except ValueError:
        return None  # the parser's error would quote the answer


class Transcript:
    """The text, usage and end of one answer, collected from its events."""

    def __init__(self, model: str, headers: Mapping[str, str]) -> None:
        self._model = model
        self._headers = headers
        self._pieces: list[str] = []
        self._usage: dict[str, int] = {}
        self._stop_reason: str | None = None
        self._stopped = False
        #: True while no text block is open: the model may be thinking and send only pings.
        self.may_think = False

    def add(self, event: Event) -> str:
        """Record one event and return the text it adds, often "".

        Unknown types of events and blocks are ignored. Thinking is not text.
        """
        text = self._text_of(event)
        if text:
            self._pieces.append(text)
        return text

    def _text_of(self, event: Event) -> str:
        match event:
            case {
                "type": "content_block_delta",
                "delta": {"type": "text_delta", "text": str(text)},
            }:
                return text
            case {
                "type": "content_block_start",
                "content_block": {"type": "text", "text": str(text)},
            }:
                self.may_think = False
                return text
            case {"type": "content_block_delta", "delta": {"type": "text_delta"}}:
                raise BadAnswer("bad_event", request_id=self.request_id)
            case {"type": "error"}:
                raise api_error(200, self._headers, event)
            case _:
                self._record(event)
                return ""

    def _record(self, event: Event) -> None:
        match event:
            case {"type": "content_block_stop"}:
                self.may_think = True
            case {"type": "message_start", "message": {"model": str(model), **message}}:
                self._model = model
                self.may_think = True
                self._set_usage(message.get("usage"))
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                self._stop_reason = reason
                self._set_usage(event.get("usage"))
            case {"type": "message_stop"}:
                self._stopped = True

    def _set_usage(self, usage: object) -> None:
        """Overwrite the usage so far: the API sends totals, not differences."""
        if isinstance(usage, dict):
            counted = {field: usage.get(key) for key, field in _USAGE_FIELDS.items()}
            self._usage |= {name: count for name, count in counted.items() if type(count) is int}

    @property
    def request_id(self) -> str | None:
        """The id that the provider gave this call."""
        return self._headers.get("request-id")

    def answer(self) -> Answer:
        """Return the complete answer.

        Raises `BadAnswer` if the stream ended without `message_stop` or a stop reason. An answer
        without text is valid only as a refusal; otherwise raises `Rejected` if the model had run
        out of room for text, else `BadAnswer`.
        """
        if not self._stopped or not isinstance(self._stop_reason, str):
            raise BadAnswer("truncated", request_id=self.request_id)
        text = "".join(self._pieces)
        if not text.strip() and self._stop_reason != "refusal":
            kind = Rejected if self._stop_reason in _OUT_OF_ROOM else BadAnswer
            code = "no_room_for_text" if kind is Rejected else "no_text"
            raise kind(code, request_id=self.request_id)
        return Answer(
            text=text,
            stop_reason=self._stop_reason,
            model=self._model,
            usage=Usage(**self._usage),
            request_id=self.request_id,
            pause_s=pause_seconds(self._headers),
        )
