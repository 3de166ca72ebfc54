"""What Claude reports beside the text of an answer: model, tokens, why it stopped, its lifecycle.

No reply depends on it. So each field is checked by itself, and one that is not what it should be
counts as absent and is named in `dropped`: it never costs a reply that was paid for.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from afterword.shared.contracts import Id, StopDetails, Usage

T = TypeVar("T", bound="_Reported")

#: More tokens than any answer has; the ledger adds them up in 64 bits.
MOST_TOKENS = 10**9

#: Longer explanations of a refusal are cut.
MOST_CHARACTERS = 1000


def _or_drop(
    value: Any, validate: ValidatorFunctionWrapHandler, info: ValidationInfo[list[str]]
) -> Any:
    """Return None for a value that does not validate, and note the name of its field."""
    try:
        return validate(value)
    except ValidationError:
        info.context.append(str(info.field_name))
        return None


def _storable(text: str) -> str:
    """Return the beginning of a text, without what PostgreSQL and UTF-8 cannot hold."""
    return text[:MOST_CHARACTERS].replace("\0", "").encode("utf-8", "replace").decode()


_Drop = WrapValidator(_or_drop)
_Count = Annotated[Annotated[int, Field(ge=0, le=MOST_TOKENS)] | None, _Drop]
_Word = Annotated[Annotated[str, StringConstraints(pattern=r"\A[a-z0-9_]{1,64}\z")] | None, _Drop]


class _Reported(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, hide_input_in_errors=True)


class _Tokens(_Reported):
    input: _Count = Field(None, alias="input_tokens")
    output: _Count = Field(None, alias="output_tokens")
    cache_read: _Count = Field(None, alias="cache_read_input_tokens")
    cache_write: _Count = Field(None, alias="cache_creation_input_tokens")


class _Details(_Reported):
    category: _Word = None
    explanation: Annotated[Annotated[str, AfterValidator(_storable)] | None, _Drop] = None


class _Message(_Reported):
    model: Annotated[Id | None, _Drop] = None
    usage: Annotated[_Tokens | None, _Drop] = None


class _Delta(_Reported):
    stop_reason: _Word = None
    stop_details: Annotated[_Details | None, _Drop] = None


class _Start(_Reported):
    message: Annotated[_Message | None, _Drop] = None


class _End(_Reported):
    delta: Annotated[_Delta | None, _Drop] = None
    usage: Annotated[_Tokens | None, _Drop] = None


class _Listing(_Reported):
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
    dropped: list[str] = []
    try:
        return _Tokens.model_validate(counted, context=dropped).input is not None
    except ValidationError:
        return False


class Reported:
    """What the events of one answer report, the last value of each field."""

    def __init__(self, model: str) -> None:
        """Begin with the model that was asked."""
        self.model = model
        self.stop_reason: str | None = None
        self.stop_details: StopDetails | None = None
        self.dropped: list[str] = []
        self._usage: dict[str, int] = {}

    @property
    def usage(self) -> Usage:
        """The tokens: the API sends totals, which overwrite one another."""
        return Usage(**self._usage)

    def begin(self, event: dict[str, Any]) -> None:
        """Record a `message_start`."""
        message = self._read(_Start, event).message or _Message()
        self.model = message.model or self.model
        self._count(message.usage)

    def end(self, event: dict[str, Any]) -> None:
        """Record a `message_delta`; a reason that cannot be read is `unknown`."""
        noted = len(self.dropped)
        end = self._read(_End, event)
        delta = end.delta or _Delta()
        unread = "stop_reason" in self.dropped[noted:]
        self.stop_reason = "unknown" if unread else delta.stop_reason or self.stop_reason
        if delta.stop_details is not None:
            self.stop_details = StopDetails(**delta.stop_details.model_dump())
        self._count(end.usage)

    def _read(self, kind: type[T], event: dict[str, Any]) -> T:
        return kind.model_validate(event, context=self.dropped)

    def _count(self, tokens: _Tokens | None) -> None:
        if tokens is not None:
            self._usage |= tokens.model_dump(exclude_none=True)
