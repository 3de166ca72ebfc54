"""Reads one streamed answer of Claude: bytes to events, events to the complete answer.

The text must be read exactly or not at all: an event that holds text and is not what it should be
is a `BadAnswer`. Unknown events, blocks and fields are ignored, as the API may add some.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import from_json

from afterword.shared.contracts import REFUSAL, Usage
from afterword.shared.errors import BadAnswer, Rejected
from afterword.workers.adapters.claude.errors import api_error
from afterword.workers.adapters.claude.rate_limits import pause_seconds
from afterword.workers.adapters.claude.reported import Reported
from afterword.workers.adapters.http import request_id_of
from afterword.workers.ports import Answer

Event = dict[str, Any]

#: A longer line is an error, so that an endless line cannot fill the memory.
MAX_EVENT_BYTES = 4 * 1024 * 1024

#: A longer text is an error: no model can say so much, and the ledger would have to hold it.
MAX_TEXT_CHARACTERS = 4_000_000

#: Stop reasons that can leave no room for text: the same request would end the same way again.
_OUT_OF_ROOM = ("max_tokens", "model_context_window_exceeded")


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
            if not line.startswith(b"data:"):
                continue
            event = _parsed(line[len(b"data:") :])
            if not isinstance(event, dict) or not isinstance(event.get("type"), str):
                raise BadAnswer("bad_event", request_id=self._request_id)
            yield event


def _parsed(line: bytes) -> object:
    """Parse JSON; None if it is none. No error quotes it.

    The fast parser refuses half a surrogate pair, which may continue in the next event, and deep
    nesting, which may be in a field that nobody needs.
    """
    try:
        return from_json(line)
    except ValueError:
        pass
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


class Transcript:
    """The text and the end of one answer, collected from its events."""

    def __init__(self, model: str, headers: Mapping[str, str]) -> None:
        self._headers = headers
        self._reported = Reported(model)
        self._pieces: list[str] = []
        self._characters = 0
        self._half = ""
        #: True once the answer is complete.
        self.stopped = False
        #: True while no text block is open: the model may be thinking and send only pings.
        self.may_think = False
        #: The id that the provider gave this call.
        self.request_id = request_id_of(headers)

    @property
    def model(self) -> str:
        """The model that answers, as far as it was told."""
        return self._reported.model

    @property
    def usage(self) -> Usage:
        """The tokens that were told so far."""
        return self._reported.usage

    def add(self, event: Event) -> str:
        """Record one event and return the text it adds, often "".

        Unknown types of events and blocks are ignored. Thinking is not text.
        """
        text = self._text_of(event)
        if not text.isascii() or self._half:
            text = self._joined(text)
        if text:
            self._pieces.append(text)
            self._characters += len(text)
            if self._characters > MAX_TEXT_CHARACTERS:
                raise self._bad("too_long")
        return text

    def _text_of(self, event: Event) -> str:
        kind, delta = event.get("type"), event.get("delta")
        if kind == "content_block_delta":
            return self._text_in(delta)
        if isinstance(delta, dict) and "text" in delta:
            raise self._bad("bad_event")
        if kind == "content_block_start":
            return self._opening(event.get("content_block"))
        if kind == "error":
            raise api_error(200, self._headers, event)
        self._record(kind, event)
        return ""

    def _text_in(self, delta: object) -> str:
        if isinstance(delta, dict):
            kind, text = delta.get("type"), delta.get("text")
            if kind == "text_delta" and isinstance(text, str):
                return text
            if isinstance(kind, str) and kind != "text_delta" and "text" not in delta:
                return ""  # thinking, a signature, a citation, ...
        raise self._bad("bad_event")

    def _opening(self, block: object) -> str:
        """Return the text with which a block begins: mostly "", and it may be missing."""
        if not isinstance(block, dict) or block.get("type") != "text":
            return ""
        self.may_think = False
        text = block.get("text")
        if not isinstance(text, str | None):
            raise self._bad("bad_event")
        return text or ""

    def _record(self, kind: object, event: Event) -> None:
        match kind:
            case "content_block_stop":
                self.may_think = True
            case "message_start":
                self.may_think = True
                self._reported.begin(event)
            case "message_delta":
                self._reported.end(event)
            case "message_stop":
                self.stopped = True

    def _joined(self, text: str) -> str:
        """Join a surrogate pair that was cut between two events; a half of none becomes U+FFFD."""
        text = self._half + text
        goes_on = "\ud800" <= text[-1:] <= "\udbff" and not self.stopped
        self._half = text[-1] if goes_on else ""
        whole = text[:-1] if goes_on else text
        try:
            whole.encode()  # mostly there is no half
        except UnicodeEncodeError:
            return whole.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return whole

    def _bad(self, code: str) -> BadAnswer:
        return BadAnswer(code, request_id=self.request_id)

    def answer(self) -> Answer:
        """Return the complete answer.

        Raises `BadAnswer` if the stream ended without `message_stop` or a stop reason. An answer
        without text is valid only as a refusal; otherwise raises `Rejected` if the model had run
        out of room for text, else `BadAnswer`.
        """
        reported = self._reported
        if not self.stopped or reported.stop_reason is None:
            raise self._bad("truncated")
        text = "".join(self._pieces)
        if not text.strip() and reported.stop_reason != REFUSAL:
            if reported.stop_reason in _OUT_OF_ROOM:
                raise Rejected("no_room_for_text", request_id=self.request_id)
            raise self._bad("no_text")
        return Answer(
            text=text,
            stop_reason=reported.stop_reason,
            model=reported.model,
            usage=reported.usage,
            stop_details=reported.stop_details,
            request_id=self.request_id,
            pause_s=pause_seconds(self._headers),
            dropped=tuple(reported.dropped),
        )
