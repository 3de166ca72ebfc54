"""One streamed answer of Claude, from the bytes of its events to the whole of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from afterword.shared.contracts import Usage
from afterword.shared.errors import BadAnswer, Rejected
from afterword.workers.adapters.claude.errors import refusal
from afterword.workers.adapters.claude.rate_limits import pause_seconds
from afterword.workers.ports import Answer

Event = dict[str, Any]

#: No event of the API comes near this; a line without end must not fill the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024

#: Reasons to stop that leave no room for text: asking the same again would end the same way.
_NO_ROOM = ("max_tokens", "model_context_window_exceeded")

_USAGE_FIELDS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_write",
}


class EventLines:
    """Cuts bytes into events: each is one line of JSON that names its own type."""

    def __init__(self, request_id: str | None = None) -> None:
        self._request_id = request_id
        self._rest = b""

    def cut(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that this chunk completes; raise `BadAnswer` if one is no event."""
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
    """Return JSON; strictly, since half a surrogate pair could not be written to the ledger."""
    try:
        return from_json(line)
    except ValueError:
        return None  # no event: what is wrong with it must not be quoted


class Transcript:
    """What one answer has said so far, and whether it has said all."""

    def __init__(self, model: str, headers: Mapping[str, str]) -> None:
        self._model = model
        self._headers = headers
        self._pieces: list[str] = []
        self._usage: dict[str, int] = {}
        self._stop_reason: str | None = None
        self._stopped = False
        #: True while no block of text is open: then a model may think, and only pings come.
        self.may_think = False

    def take(self, event: Event) -> str:
        """Take note of one event and return the text it adds, mostly none.

        Events and blocks of unknown types are passed over; thinking is not text.
        """
        text = self._read(event)
        if text:
            self._pieces.append(text)
        return text

    def _read(self, event: Event) -> str:
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
                raise refusal(200, self._headers, event)
            case _:
                self._note(event)
                return ""

    def _note(self, event: Event) -> None:
        match event:
            case {"type": "content_block_stop"}:
                self.may_think = True
            case {"type": "message_start", "message": {"model": str(model), **message}}:
                self._model = model
                self.may_think = True
                self._count(message.get("usage"))
            case {"type": "message_delta", "delta": {"stop_reason": reason}}:
                self._stop_reason = reason
                self._count(event.get("usage"))
            case {"type": "message_stop"}:
                self._stopped = True

    def _count(self, usage: object) -> None:
        """Overwrite what was counted before: the API sends totals, not differences."""
        if isinstance(usage, dict):
            counted = {ours: usage.get(theirs) for theirs, ours in _USAGE_FIELDS.items()}
            self._usage |= {name: count for name, count in counted.items() if type(count) is int}

    @property
    def request_id(self) -> str | None:
        """The provider's own name for this call."""
        return self._headers.get("request-id")

    def answer(self) -> Answer:
        """Return the whole answer.

        Raises `BadAnswer` if the model did not say that it is done. No text is an answer only of
        one that refuses; else `Rejected` if it had no room for any, `BadAnswer` if it had.
        """
        if not self._stopped or not isinstance(self._stop_reason, str):
            raise BadAnswer("truncated", request_id=self.request_id)
        text = "".join(self._pieces)
        if not text.strip() and self._stop_reason != "refusal":
            kind = Rejected if self._stop_reason in _NO_ROOM else BadAnswer
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
