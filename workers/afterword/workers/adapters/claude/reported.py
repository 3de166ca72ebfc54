"""What Claude reports beside the text of an answer: model, tokens, why it stopped, its lifecycle.

No reply depends on it. So each field is checked by itself, and one that is not what it should be
counts as absent and is named in `dropped`: it never costs a reply that was paid for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from afterword.shared.contracts import Id, StopDetails, Usage

#: More tokens than any answer has; the ledger adds them up in 64 bits.
MOST_TOKENS = 10**9

#: Longer explanations of a refusal are cut.
MOST_CHARACTERS = 1000

#: What the API calls the fields of `Usage`.
_TOKENS = {
    "input_tokens": "input",
    "output_tokens": "output",
    "cache_read_input_tokens": "cache_read",
    "cache_creation_input_tokens": "cache_write",
}

_WORD = re.compile(r"[a-z0-9_]{1,64}")
_ID: TypeAdapter[str] = TypeAdapter(Id)
_NOTHING: Mapping[str, Any] = {}


class _Listing(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)

    lifecycle: Literal["active", "deprecated", "retired"]
    retires_at: Annotated[datetime | None, Field(strict=False)] = None


def deprecation(model: str, listed: object) -> str:
    """Return a warning if the entry of a model says that it ends; "" if it cannot be read."""
    try:
        found = _Listing.model_validate(listed)
    except ValidationError:
        return ""
    if found.lifecycle == "active":
        return ""
    ends = f" and ends on {found.retires_at:%Y-%m-%d}" if found.retires_at else ""
    return f"{model} is {found.lifecycle}{ends}"


def is_token_count(counted: object) -> bool:
    """Return whether an answer is a count of tokens."""
    return isinstance(counted, dict) and _is_count(counted.get("input_tokens"))


class Reported:
    """What the events of one answer report, the last value of each field."""

    def __init__(self, model: str) -> None:
        """Begin with the model that was asked."""
        self.model = model
        self.stop_reason: str | None = None
        self.stop_details: StopDetails | None = None
        self.dropped: list[str] = []
        self.usage = Usage()
        self._usage: dict[str, int] = {}

    def begin(self, event: Mapping[str, Any]) -> None:
        """Record a `message_start`."""
        message = self._read(event, "message", _is_object) or _NOTHING
        if message.get("model") != self.model:
            self.model = self._read(message, "model", _is_id) or self.model
        self._count(message)

    def end(self, event: Mapping[str, Any]) -> None:
        """Record a `message_delta`; a reason that cannot be read is `unknown`."""
        delta = self._read(event, "delta", _is_object) or _NOTHING
        reason = self._read(delta, "stop_reason", _is_word)
        unread = reason is None and delta.get("stop_reason") is not None
        self.stop_reason = "unknown" if unread else reason or self.stop_reason
        details = self._read(delta, "stop_details", _is_object)
        if details is not None:
            explanation = self._read(details, "explanation", _is_text)
            self.stop_details = StopDetails(
                category=self._read(details, "category", _is_word),
                explanation=explanation and _storable(explanation),
            )
        self._count(event)

    def _read(
        self, fields: Mapping[str, Any], name: str, fits: Callable[[object], bool], ours: str = ""
    ) -> Any:
        """Return a field, None if it is not what it should be: then its name is noted."""
        value = fields.get(name)
        if value is None or fits(value):
            return value
        self.dropped.append(ours or name)
        return None

    def _count(self, fields: Mapping[str, Any]) -> None:
        """Note the tokens: the API sends totals, which overwrite one another."""
        told = self._read(fields, "usage", _is_object)
        if told is None:
            return
        for theirs, ours in _TOKENS.items():
            if (count := self._read(told, theirs, _is_count, ours)) is not None:
                self._usage[ours] = count
        self.usage = Usage(**self._usage)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MOST_TOKENS


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_word(value: object) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_id(value: object) -> bool:
    try:
        return _ID.validate_python(value, strict=True) == value
    except ValidationError:
        return False


def _storable(text: str) -> str:
    """Return the beginning of a text, without what PostgreSQL and UTF-8 cannot hold."""
    return text[:MOST_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode()
