"""What crosses a process border: requests, replies, events, states; validated and frozen."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from afterword.shared.errors import InvalidRequest
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.tokens import estimated_tokens

#: The version that every record carries; a record of a newer one is held, not guessed (I13).
RECORD_VERSION = 1

MAX_ID_CHARACTERS = 128
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 16
_TOO_LARGE = f"must not exceed {MAX_METADATA_BYTES} bytes as JSON"
MAX_EXPIRES_IN_S = 7 * 24 * 3600.0
MAX_OUTPUT_TOKENS = 128_000

Priority = Literal["high", "normal", "low"]
WhenBusy = Literal["enqueue", "reject", "interrupt"]
MemoryStatus = Literal["fresh", "overlay", "degraded", "off"]


def _refuse(reason: str) -> PydanticCustomError:
    """Build an error of a fixed wording: what was sent never becomes part of it (I11)."""
    return PydanticCustomError("afterword", "{reason}", {"reason": reason})


def _clean_id(value: str) -> str:
    if value != value.strip():
        raise _refuse("must not begin or end with a space")
    if not value.isprintable():
        raise _refuse("must hold printable characters only")
    return value


def _clean_text(value: str) -> str:
    if "\x00" in value:
        raise _refuse("must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _refuse("must be valid Unicode, it holds a lone surrogate") from None
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise _refuse("must not be blank")
    return value


def _clean_metadata(value: object) -> object:
    """Check by a loop, so that a value nested 1,000 deep is refused and crashes nothing."""
    if isinstance(value, Mapping):
        value = dict(value)
    if not isinstance(value, dict):
        raise _refuse("must be an object")
    todo: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if depth > MAX_METADATA_DEPTH:
            raise _refuse(f"must not nest deeper than {MAX_METADATA_DEPTH}")
        if seen > MAX_METADATA_BYTES:  # each is a byte at least; a list may hold one many times
            raise _refuse(_TOO_LARGE)
        todo.extend((inner, depth + 1) for inner in _inside(item))
    if len(json.dumps(value).encode()) > MAX_METADATA_BYTES:
        raise _refuse(_TOO_LARGE)
    return value


def _inside(item: object) -> list[Any]:
    """Return what a container holds; check what is none."""
    if isinstance(item, dict):
        if not all(isinstance(name, str) for name in item):
            raise _refuse("must be plain JSON with text keys")
        return [*item, *item.values()]
    if isinstance(item, list):
        return item
    _check_metadata_leaf(item)
    return []


def _check_metadata_leaf(item: object) -> None:
    if isinstance(item, str):
        _clean_text(item)
    elif isinstance(item, float) and not math.isfinite(item):
        raise _refuse("must not hold NaN or infinity")
    elif item is not None and not isinstance(item, (int, float)):
        raise _refuse("must be plain JSON")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise _refuse("must be a finite number")
    return value


Id = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_ID_CHARACTERS),
    AfterValidator(_clean_id),
]
Text = Annotated[
    str, StringConstraints(strict=True), AfterValidator(_not_blank), AfterValidator(_clean_text)
]
Metadata = Annotated[dict[str, Any], BeforeValidator(_clean_metadata)]


class Contract(BaseModel):
    """A frozen record that keeps its content out of errors, and ignores what a newer one adds."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ChatRequest(Contract):
    """What a backend asks for: one message of one user, to be answered with memory.

    `when_busy` says what becomes of it while an earlier message of its conversation has no reply
    yet: it waits its turn, is refused, or ends the earlier ones. Unknown fields are refused.
    """

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    message: Text
    conversation_id: Id | None = None
    when_busy: WhenBusy = "enqueue"
    idempotency_key: Id | None = None
    tenant: Id = "default"
    system: Text | None = None
    model: Id | None = None
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    metadata: Metadata | None = None
    priority: Priority = "normal"
    expires_in: (
        Annotated[float, AfterValidator(_finite), Field(gt=0, le=MAX_EXPIRES_IN_S)] | None
    ) = None

    @field_validator("when_busy")
    @classmethod
    def _of_a_conversation(cls, value: WhenBusy, read: ValidationInfo) -> WhenBusy:
        if value != "enqueue" and read.data.get("conversation_id") is None:
            raise _refuse("needs a conversation_id")
        return value

    @classmethod
    def parse(cls, values: Mapping[str, Any], *, max_bytes: int, max_tokens: int) -> Self:
        """Validate one request.

        `max_bytes` and `max_tokens` (estimated) cap the message and the system text. Raises
        `InvalidRequest`, which names the field and never repeats what it held.
        """
        try:
            request = cls.model_validate(dict(values))
        except ValidationError as error:
            raise _invalid(error) from None
        for field in ("message", "system"):
            _check_size(field, getattr(request, field), max_bytes, max_tokens)
        return request

    def body(self) -> str:
        """Return the canonical JSON of what is asked, without the idempotency key.

        What came after version 1 is left out where it says what version 1 did, so that older
        workers can read it and its fingerprint stays.
        """
        asked = self.model_dump(exclude={"idempotency_key"}, exclude_none=True)
        if self.when_busy == "enqueue":
            del asked["when_busy"]
        return _CANONICAL.encode(asked)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the body: two requests are the same if these are."""
        return fingerprint_of(self.body())


#: Made once: `json.dumps` would make one for each body.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint_of(body: str) -> str:
    """Return the fingerprint of a request by its body."""
    return hashlib.sha256(body.encode()).hexdigest()


def _invalid(error: ValidationError) -> InvalidRequest:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = str(first["loc"][0]) if first["loc"] else "request"
    reason = "unknown field" if first["type"] == "extra_forbidden" else first["msg"]
    return InvalidRequest(field, reason[:1].lower() + reason[1:])


def _check_size(field: str, text: str | None, max_bytes: int, max_tokens: int) -> None:
    if text is None:
        return
    if len(text.encode()) > max_bytes:
        raise InvalidRequest(field, f"must not exceed {max_bytes} bytes")
    if estimated_tokens(text) > max_tokens:
        raise InvalidRequest(field, f"must not exceed about {max_tokens} tokens")


class Usage(Contract):
    """Tokens as the provider counted them; cache reads and writes come on top of `input`."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class UsageSum(Contract):
    """What the replies of a tenant, or of one of its users, have cost so far."""

    tenant: str
    user_id: str | None = None
    replies: int = 0
    usage: Usage = Usage()


class MemoryUsed(Contract):
    """One memory that was given to the model for this reply."""

    id: str
    text: str
    score: float
    created_at: datetime | None = None


class Timings(Contract):
    """Where the time went, in milliseconds."""

    queued: int
    recall: int
    model: int
    total: int


class Reply(Contract):
    """The answer to one job, with how its memory was and what it cost."""

    job_id: str
    user_id: str
    conversation_id: str | None
    text: str
    stop_reason: str
    model: str
    usage: Usage
    memory: MemoryStatus
    memories: tuple[MemoryUsed, ...] = ()
    attempts: int
    timings_ms: Timings


EventType = Literal["started", "delta", "restart", "final", "failed"]


class Event(Contract):
    """One event of a reply stream.

    `id` resumes the stream after this event. `text` stands on a `delta`, `reply` on the
    `final`, `code` and `state` on a `failed`. Deltas carry their attempt; `restart` says that
    all deltas so far are void.
    """

    id: str
    type: EventType
    attempt: int = 0
    text: str | None = None
    reply: Reply | None = None
    code: str | None = None
    state: JobState | None = None


class JobStatus(Contract):
    """Where a job is, and where its turn is on its way into memory."""

    job_id: str
    state: JobState
    turn: TurnState
    attempts: int
    created_at: datetime
    deadline: datetime
    code: str | None = None
    turn_code: str | None = None
