"""The records that processes exchange: requests, replies, events and states."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
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
from afterword.shared.local_time import is_known_zone
from afterword.shared.tokens import estimated_tokens
from afterword.shared.trace_context import Trace
from afterword.shared.validation import first_error, reason_of

#: The newest version of a stored record that this build knows. A worker leaves records of a newer
#: one alone (I13).
RECORD_VERSION = 2

#: The version of a record in which nothing is newer: also older workers may take it.
OLDEST_VERSION = 1

DEFAULT_TENANT = "default"
MAX_ID_CHARACTERS = 128
MAX_METADATA_BYTES = 16 * 1024
MAX_METADATA_DEPTH = 16
_TOO_LARGE = f"must not exceed {MAX_METADATA_BYTES} bytes as JSON"
MAX_EXPIRES_IN_S = 7 * 24 * 3600.0
MAX_OUTPUT_TOKENS = 128_000

#: The stop reason of a model that refused to answer.
REFUSAL = "refusal"

#: What stands in its place, in a conversation's history, for a message that was stopped.
UNANSWERED = "unanswered"

Priority = Literal["high", "normal", "low"]
"""Which jobs are answered first; within a priority, those submitted first."""

WhenBusy = Literal["enqueue", "reject", "interrupt", "merge"]
"""What happens to a message while an earlier one of its conversation has no reply.

`enqueue` lets it wait, `reject` refuses it with `ConversationBusy`, and `interrupt` cancels the
earlier ones with the code `interrupted`. What those said stays in the conversation and is
remembered. `merge` joins the message to the newest of them, on a line of its own, if nothing of the
reply to that was published yet and the requests are the same but for the message; else it waits.
"""

MemoryStatus = Literal["fresh", "overlay", "degraded", "off"]
"""How complete the memories of a reply were.

`fresh`: mem0 was searched, and every earlier turn was stored there. `overlay`: mem0 was searched,
and turns that were not stored yet were added. `degraded`: the search failed, was too slow, or
returned memories that had to be dropped: they could not be read, or were another user's. `off`:
memory is switched off.
"""


def refuse(reason: str) -> PydanticCustomError:
    """Build an error with fixed words: what was sent never becomes part of it (I11)."""
    return PydanticCustomError("afterword", "{reason}", {"reason": reason})


def _clean_id(value: str) -> str:
    if not value.isascii():  # "é" is one character or two, and the same user either way
        value = unicodedata.normalize("NFC", value)
        if len(value) > MAX_ID_CHARACTERS:
            raise refuse(f"must not exceed {MAX_ID_CHARACTERS} characters in the form NFC")
    if value != value.strip():
        raise refuse("must not begin or end with a space")
    if not value.isprintable():
        raise refuse("must hold printable characters only")
    return value


def _clean_text(value: str) -> str:
    if "\x00" in value:
        raise refuse("must not hold NUL characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse("must be valid Unicode, it holds a lone surrogate") from None
    return value


def _not_blank(value: str) -> str:
    if not value.strip():
        raise refuse("must not be blank")
    return value


def _clean_metadata(value: object) -> object:
    """Check by a loop, so that a value nested 1,000 deep is refused and crashes nothing."""
    if isinstance(value, Mapping):
        value = dict(value)
    if not isinstance(value, dict):
        raise refuse("must be an object")
    todo: list[tuple[Any, int]] = [(value, 1)]
    seen = 0
    while todo:
        item, depth = todo.pop()
        seen += 1
        if depth > MAX_METADATA_DEPTH:
            raise refuse(f"must not nest deeper than {MAX_METADATA_DEPTH}")
        if seen > MAX_METADATA_BYTES:  # each is a byte at least; a list may hold one many times
            raise refuse(_TOO_LARGE)
        todo.extend((inner, depth + 1) for inner in _inside(item))
    if len(json.dumps(value).encode()) > MAX_METADATA_BYTES:
        raise refuse(_TOO_LARGE)
    return value


def _inside(item: object) -> list[Any]:
    """Return what a container holds; check a value that is no container."""
    if isinstance(item, dict):
        if not all(isinstance(name, str) for name in item):
            raise refuse("must be plain JSON with text keys")
        return [*item, *item.values()]
    if isinstance(item, list):
        return item
    _check_metadata_leaf(item)
    return []


def _check_metadata_leaf(item: object) -> None:
    if isinstance(item, str):
        _clean_text(item)
    elif isinstance(item, float) and not math.isfinite(item):
        raise refuse("must not hold NaN or infinity")
    elif item is not None and not isinstance(item, (int, float)):
        raise refuse("must be plain JSON")


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise refuse("must be a finite number")
    return value


def _clean_time(value: object) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise refuse("must be a datetime, or a text in the format ISO 8601") from None
    if not isinstance(value, datetime):
        raise refuse("must be a datetime, or a text in the format ISO 8601")
    if value.utcoffset() is None:
        raise refuse("must have a time zone or an offset from UTC")
    if value < _FIRST_MOMENT:
        raise refuse("must not be before 1970")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise refuse("must be before the year 10000") from None


_FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)

Id = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_ID_CHARACTERS),
    AfterValidator(_clean_id),
]
Text = Annotated[
    str, StringConstraints(strict=True), AfterValidator(_not_blank), AfterValidator(_clean_text)
]
Metadata = Annotated[dict[str, Any], BeforeValidator(_clean_metadata)]
Moment = Annotated[datetime, BeforeValidator(_clean_time)]


class Contract(BaseModel):
    """A frozen record, whose errors hide its content. Fields of newer versions are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class ChatRequest(Contract):
    """One message of a user, to be answered with what is remembered of them.

    These are the arguments of `submit`, and the items of `submit_many`. Ids have 1 to 128 printable
    characters and neither begin nor end with a space. They are kept in the Unicode form NFC, so
    that the same letters are the same id, however they were typed; ids that only look alike, such
    as "ann" and "Ann", are two. Fields that are not listed here are refused.
    """

    model_config = ConfigDict(extra="forbid")

    user_id: Id
    """Whose memories are recalled, and who the turn is stored for."""

    message: Text
    """What the user said: not blank, no NUL, at most `AFTERWORD_MAX_MESSAGE_BYTES` bytes (65,536)
    and `AFTERWORD_MAX_MESSAGE_TOKENS` estimated tokens (16,000)."""

    conversation_id: Id | None = None
    """The conversation, if any. Its messages are answered in the order of their submission, each
    with the last `AFTERWORD_HISTORY_TURNS` turns in its prompt."""

    when_busy: WhenBusy = "enqueue"
    """What happens while an earlier message of the conversation has no reply. Anything but
    `enqueue` requires a `conversation_id`."""

    idempotency_key: Id | None = None
    """Makes it safe to send the request again: for `AFTERWORD_IDEMPOTENCY_S` seconds (a day) the
    same key with the same request returns the same job, and with a different request raises
    `KeyReused`. It belongs to the user: other users, of the same tenant too, may use the same."""

    tenant: Id = DEFAULT_TENANT
    """Separates users who have the same id. Every user belongs to one tenant."""

    system: Text | None = None
    """Text that follows `AFTERWORD_SYSTEM_PROMPT` in the system prompt; limited as `message` is."""

    model: Id | None = None
    """The Claude model that replies; `AFTERWORD_MODEL` if omitted."""

    max_tokens: Annotated[int, Field(strict=True, ge=1, le=MAX_OUTPUT_TOKENS)] | None = None
    """The longest reply, in tokens: 1 to 128,000; `AFTERWORD_MAX_TOKENS` if omitted."""

    metadata: Metadata | None = None
    """A JSON object that is kept with the job and sent to no provider: at most 16 KiB as JSON,
    nested at most 16 deep, without NaN and infinity."""

    priority: Priority = "normal"
    """Which jobs are answered first."""

    expires_in: (
        Annotated[float, AfterValidator(_finite), Field(strict=True, gt=0, le=MAX_EXPIRES_IN_S)]
        | None
    ) = None
    """Seconds after which the job expires if it has no reply: up to 604,800 (7 days);
    `AFTERWORD_JOB_TTL_S` (an hour) if omitted."""

    remember: Annotated[bool, Field(strict=True)] = True
    """Whether the turn is stored in memory. If not, the message is still answered with what memory
    knows, and still becomes part of its conversation's history."""

    at: Moment | None = None
    """When the message was said, if not now: a datetime with a time zone, or a text in the format
    ISO 8601 with an offset. It is the date of the memory and the day that "yesterday" refers to; it
    must not be in the future, and changes no order: turns are stored as they are submitted."""

    timezone: Id | None = None
    """The user's time zone, as IANA names it: `Europe/Berlin`. The model is told what day it is
    there, and sees the dates of memories as they are there; in UTC if omitted."""

    trace_context: Trace | None = None
    """Which span the job belongs to: the W3C headers `traceparent` and `tracestate` in a mapping,
    as OpenTelemetry's `inject` fills it; other keys than `baggage`, which is not kept, are refused.
    The span that is active where `submit` is called, if omitted. The same request from another span
    is the same job, with the context of the first."""

    @field_validator("when_busy")
    @classmethod
    def _of_a_conversation(cls, value: WhenBusy, read: ValidationInfo) -> WhenBusy:
        if value != "enqueue" and read.data.get("conversation_id") is None:
            raise refuse("needs a conversation_id")
        return value

    @classmethod
    def parse(cls, values: object, *, max_bytes: int, max_tokens: int) -> Self:
        """Validate one request: a mapping of its fields, or a `ChatRequest`.

        `max_bytes` and `max_tokens` (estimated) limit the message and the system text. Raises
        `InvalidRequest` for anything else, which names the field and never repeats what it held.
        """
        if not isinstance(values, (Mapping, ChatRequest)):
            raise InvalidRequest("request", "must be a mapping or a ChatRequest")
        try:
            request = cls.model_validate(dict(values))
        except ValidationError as error:
            raise invalid_request(error) from None
        except Exception as error:  # a mapping of the caller's own may raise anything
            raise InvalidRequest("request", f"reading it raised {type(error).__name__}") from error
        for field in ("message", "system"):
            _check_size(field, getattr(request, field), max_bytes, max_tokens)
        if request.timezone is not None and not is_known_zone(request.timezone):
            raise InvalidRequest("timezone", "must be an IANA time zone that this machine knows")
        return request

    def body(self) -> str:
        """Return the canonical JSON of the request, without idempotency key and trace context.

        A field that was added after version 1 is left out while it has its default, so that older
        workers can read the request and its fingerprint does not change.
        """
        fields = self.model_dump(exclude={"idempotency_key", "trace_context"}, exclude_none=True)
        if self.when_busy == "enqueue":
            del fields["when_busy"]
        if self.remember:
            del fields["remember"]
        if self.at is not None:
            fields["at"] = self.at.isoformat()
        return _CANONICAL.encode(fields)

    @property
    def record_version(self) -> int:
        """The version of a record that holds this request: the oldest that can read it."""
        is_newer = (
            not self.remember
            or self.at is not None
            or self.timezone is not None
            or self.when_busy == "merge"
        )
        return RECORD_VERSION if is_newer else OLDEST_VERSION

    def fingerprint(self) -> str:
        """Return the SHA-256 of the body: requests with the same fingerprint are the same."""
        return fingerprint_of(self.body())


#: Made once: `json.dumps` would make one for each body.
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint_of(body: str) -> str:
    """Return the fingerprint of a request by its body."""
    return hashlib.sha256(body.encode()).hexdigest()


def invalid_request(error: ValidationError) -> InvalidRequest:
    """Return the error that names the first field that is not valid, without what it held."""
    location = first_error(error)["loc"]
    field = str(location[0]) if location else ""
    # What is no name may be content: it is not repeated.
    named = field.isidentifier() and len(field) <= MAX_ID_CHARACTERS
    return InvalidRequest(field if named else "request", reason_of(error))


def _check_size(field: str, text: str | None, max_bytes: int, max_tokens: int) -> None:
    if text is None:
        return
    if len(text.encode()) > max_bytes:
        raise InvalidRequest(field, f"must not exceed {max_bytes} bytes")
    if estimated_tokens(text) > max_tokens:
        raise InvalidRequest(field, f"must not exceed about {max_tokens} tokens")


class Usage(Contract):
    """Tokens of one or more replies, as Claude counted them."""

    input: int = 0
    """Input tokens that were neither read from the prompt cache nor written to it."""

    output: int = 0
    """Output tokens."""

    cache_read: int = 0
    """Input tokens that were read from the prompt cache."""

    cache_write: int = 0
    """Input tokens that were written to the prompt cache."""

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of both."""
        return Usage(**{name: count + getattr(other, name) for name, count in self})


class Extraction(Contract):
    """What it took to extract facts out of turns: calls of `AFTERWORD_MEMORY_MODEL` by our workers.

    What mem0's platform extracts is not in it: that has a price list of its own.
    """

    usage: Usage = Usage()
    """The tokens of these calls, as far as Claude told them, of attempts that failed, too."""

    cost_usd: float = 0.0
    """What they cost in US dollars, as far as the price of the model is known."""

    facts: int = 0
    """How many memories came of them."""

    fact_usd: float | None = None
    """What one of these memories cost, in US dollars; None if there is none."""


class MemoryUsed(Contract):
    """A memory that was in the prompt of a reply."""

    id: str
    """Its id in mem0."""

    text: str
    """Its text, as the model read it."""

    score: Annotated[float, Field(allow_inf_nan=False)] | None
    """How well it fits the message, by the backend's own measure if it has one; more is better."""

    created_at: datetime | None = None
    """When it was created, if the memory backend says so."""


class Recalled(Contract):
    """What memory gave for one attempt to reply."""

    memory: MemoryStatus
    """How complete the memories are."""

    memories: tuple[MemoryUsed, ...] = ()
    """The memories of mem0 that are in the prompt, best first."""


class StopDetails(Contract):
    """Why the model refused, if the provider says more than that it did."""

    category: str | None = None
    """The kind of harm, in the provider's words: `cyber`, `bio`, ...; None if it names none."""

    explanation: str | None = None
    """The provider's own explanation, at most 1,000 characters. Its wording may change any time."""


class Timings(Contract):
    """How long the stages of a reply took, in milliseconds."""

    queued: int
    """From the submission to the attempt that succeeded."""

    recall: int
    """The search for memories."""

    model: int
    """The call of Claude, to its last token."""

    total: int
    """The sum of the three."""

    first_text: int | None = None
    """From the submission to the first piece of the text; None if there is no text."""


class Reply(Contract):
    """The reply to one job."""

    job_id: str
    """The job."""

    user_id: str
    """The user who is answered."""

    conversation_id: str | None
    """The conversation of the message, if any."""

    text: str
    """The whole text."""

    stop_reason: str
    """Why the model stopped, in Claude's words: `end_turn`, `max_tokens`, `refusal`, ..."""

    stop_details: StopDetails | None = None
    """More about a refusal, if the provider gave any."""

    model: str
    """The model that replied."""

    usage: Usage
    """The tokens of the call that gave this reply; `JobStatus.usage` has those of all attempts."""

    memory: MemoryStatus
    """How complete the memories were."""

    memories: tuple[MemoryUsed, ...] = ()
    """The memories of mem0 that were in the prompt, best first."""

    not_remembered: str | None = None
    """Why its turn is not remembered, a fixed word such as `question_only`; None if the turn is
    queued for memory. It is decided with the reply and stays: how far the turn is on its way says
    `JobStatus.turn`."""

    attempts: int
    """How many attempts there were, this one included."""

    timings_ms: Timings
    """How long it took."""


EventType = Literal["started", "recalled", "delta", "restart", "final", "failed"]
"""What an event says. Every stream ends with one `final` or one `failed`."""


class Event(Contract):
    """One event of a reply, as `stream` yields it.

    `started` comes first, then `recalled` with the memories that the model was given, together
    with the first of the `delta`s, which have the pieces of the text. A `restart` begins another
    attempt, which recalls anew, and voids the memories and the text of all events before it.
    `final` or `failed` is the last event. Both may come without a `started`, for a job that ended
    in the queue. An attempt that fails before its first piece of text has no `recalled`.
    """

    id: str
    """Resumes the stream after this event: `stream(after=event.id)`, in any process."""

    type: EventType
    """What happened."""

    attempt: int = 0
    """The attempt, from 1; 0 for a job that ended before its first attempt."""

    text: str | None = None
    """The next piece of the text, of a `delta`."""

    memory: MemoryStatus | None = None
    """How complete the memories are, of a `recalled`."""

    memories: tuple[MemoryUsed, ...] | None = None
    """The memories of mem0 that are in the prompt, of a `recalled`: best first, empty if there are
    none or memory is off."""

    reply: Reply | None = None
    """The whole reply, of a `final`."""

    code: str | None = None
    """Why there is no reply, of a `failed`: a fixed word."""

    state: JobState | None = None
    """How the job ended, of a `failed`: `failed`, `cancelled` or `expired`."""


class JobStatus(Contract):
    """The state of a job, and of its turn on its way to memory."""

    job_id: str
    """The job."""

    state: JobState
    """The state of the job."""

    turn: TurnState
    """The state of its turn; `none` if memory is off, the request said `remember=False`, or the job
    failed or expired."""

    attempts: int
    """How many attempts have begun."""

    created_at: datetime
    """When it was submitted, by the clock of Redis, in UTC."""

    deadline: datetime
    """When it expires if it has no reply by then."""

    code: str | None = None
    """Why the job failed or was delayed last: a fixed word, if any."""

    turn_code: str | None = None
    """Why the turn was not stored or was delayed last: a fixed word, if any."""

    tenant: str = DEFAULT_TENANT
    """The tenant of the request."""

    user_id: str | None = None
    """The user of the request; None once the user was erased, as are the next two."""

    conversation_id: str | None = None
    """The conversation of the request, if any."""

    metadata: dict[str, Any] | None = None
    """The metadata of the request, if any."""

    snoozes: int = 0
    """How often it was given back because its provider was away or asked for a pause; no attempt
    is spent by that."""

    started_at: datetime | None = None
    """When its first attempt began; None before."""

    first_text_at: datetime | None = None
    """When the first piece of the reply's text came from the model; known once there is a reply."""

    ended_at: datetime | None = None
    """When it reached its end; None before."""

    usage: Usage = Usage()
    """The tokens of all its attempts so far, those without a reply among them."""

    memory_ids: tuple[str, ...] = ()
    """The memories in mem0 that its turn was stored as, less those that its user has deleted."""

    extraction: Extraction | None = None
    """What it took to extract facts of its turn; None if nothing was extracted. Of turns that were
    stored together, the first has it."""
