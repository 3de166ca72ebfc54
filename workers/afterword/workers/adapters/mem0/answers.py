"""What mem0 returns, read through one strict model each: memories, and events of its platform.

Nothing else reads them, and no row can raise. A memory that does not fit its model is dropped,
counted and reported. So is, in an event, the id of a memory that is none. What another program
wrote into a memory's metadata is no mistake: what does not fit there is not ours, and is ignored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from afterword.shared.events import MalformedMemoriesDropped
from afterword.shared.observer import emit
from afterword.workers.ports import RecalledMemory

#: A memory with a longer text is dropped: four times the longest message that is allowed.
MAX_TEXT = 4 * 65_536
MAX_ID = 256

#: Most characters of what another program may have named a turn or an attempt.
MAX_NAME = 256


def _utc(value: object) -> datetime | None:
    """Read a time as mem0 writes it; without a zone it is UTC."""
    if value is None or isinstance(value, datetime):
        return value
    if not isinstance(value, str):
        raise ValueError("a time must be a text")  # noqa: TRY004 - what pydantic takes for a refusal
    at = datetime.fromisoformat(value)
    try:
        if at.tzinfo is None:
            return at.replace(tzinfo=UTC)
        return at if at.tzinfo is UTC else at.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time must be within the years 1 to 9999") from None


def _ours_or_none(value: object, read: ValidatorFunctionWrapHandler) -> object:
    try:
        return read(value)
    except ValidationError:
        return None


def _empty_if_none(value: object) -> object:
    return {} if value is None else value


_Id = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_ID)]
_Text = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=MAX_TEXT)]
_Owner = Annotated[str, StringConstraints(strict=True)]
_Score = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Time = Annotated[datetime | None, BeforeValidator(_utc)]
_OurName = Annotated[
    Annotated[str, StringConstraints(strict=True, max_length=MAX_NAME)] | None,
    WrapValidator(_ours_or_none),
]
_OurTime = Annotated[_Time, WrapValidator(_ours_or_none)]
_OurCount = Annotated[Annotated[int, Field(strict=True, ge=1)] | None, WrapValidator(_ours_or_none)]


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Metadata(_Answer):
    """What we gave mem0 with a turn."""

    turn_id: _OurName = None
    attempt: _OurName = None
    said_at: _OurTime = None
    times_said: _OurCount = None
    conversation_id: _OurName = None
    stored_by: _OurName = None
    extraction_model: _OurName = None
    copied_from: _OurName = None


class StoredRow(_Answer):
    """A memory as far as a lookup needs it."""

    id: _Id
    user_id: _Owner | None = None
    metadata: Annotated[_Metadata, BeforeValidator(_empty_if_none)] = _Metadata()

    def owner(self, asked: str) -> str:
        """Return whose memory it is: that of whom was asked for, unless the row says otherwise."""
        return self.user_id or asked


class MemoryRow(StoredRow):
    """A memory with its text."""

    memory: _Text
    score: _Score | None = None
    created_at: _Time = None
    updated_at: _OurTime = None

    @property
    def at(self) -> datetime | None:
        """Return when it was said, as exactly as the row says: mem0 itself keeps whole seconds."""
        return self.metadata.said_at or self.created_at


def memory_of(row: MemoryRow, asked: str) -> RecalledMemory:
    """Return the memory in a row that was found for an owner."""
    return RecalledMemory(
        id=row.id,
        owner=row.owner(asked),
        text=row.memory,
        score=row.score,
        created_at=row.at,
        turn_id=row.metadata.turn_id,
        times_said=row.metadata.times_said or 1,
        updated_at=row.updated_at,
        conversation_id=row.metadata.conversation_id,
        stored_by=row.metadata.stored_by,
        extraction_model=row.metadata.extraction_model,
        copied_from=row.metadata.copied_from,
    )


class AddedRow(_Answer):
    """A memory in the results of an add."""

    id: _Id


class EntityRow(_Answer):
    """Somebody or something that mem0's platform has memories of."""

    name: _Id
    type: Annotated[str, StringConstraints(strict=True)] = "user"


class Event(_Answer):
    """The state of a request that mem0's platform processes after it has answered."""

    id: _Id | None = None
    event_id: _Id | None = None
    status: Annotated[str, StringConstraints(strict=True)] = ""
    results: list[Any] | None = None

    @property
    def name(self) -> str | None:
        """Return the id to ask for it with."""
        return self.event_id or self.id

    @property
    def required_name(self) -> str:
        """Return the same; raise `ValueError` if there is none."""
        if self.name is None:
            raise ValueError("an event must have an id")
        return self.name


class Deleted(_Answer):
    """The answer to the deletion of one memory."""

    message: Annotated[str, StringConstraints(strict=True)]


Model = TypeVar("Model", bound=_Answer)


def read_rows(rows: object, model: type[Model]) -> tuple[list[Model], int]:
    """Return the rows that fit, and how many did not; raise `TypeError` if there is no list."""
    if not isinstance(rows, list):
        raise TypeError("rows must be a list")
    read = [row for row in (_read(model, row) for row in rows) if row is not None]
    malformed = len(rows) - len(read)
    if malformed:
        emit(MalformedMemoriesDropped, count=malformed)
    return read, malformed


def _read(model: type[Model], row: object) -> Model | None:
    try:
        return model.model_validate(row)
    except ValidationError:
        return None


def ids_by_attempt(rows: Iterable[StoredRow]) -> dict[str, list[str]]:
    """Return the ids of memories, grouped by the attempt that added them."""
    attempts: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        attempts[row.metadata.attempt or ""].append(row.id)
    return dict(attempts)


#: Stands for a payload that mem0's own code could not read: `MemoryRow` refuses its time.
_UNREADABLE = {"data": "unreadable", "created_at": "unreadable"}


class _Payload(_Answer):
    """What mem0's open-source class needs of a memory in a vector store, so as not to raise."""

    data: Annotated[str, StringConstraints(strict=True)]
    hash: Annotated[str, StringConstraints(strict=True)] | None = None
    created_at: Annotated[str, StringConstraints(strict=True)] | None = None
    updated_at: Annotated[str, StringConstraints(strict=True)] | None = None


def readable_payload(payload: object) -> Mapping[str, Any]:
    """Return the payload of a memory in a vector store, or one that `read_rows` will drop.

    mem0 reads what a store returns before we do, and one payload that it cannot read would fail
    the whole search.
    """
    if not isinstance(payload, dict):
        return _UNREADABLE
    if _read(_Payload, payload) is not None:
        return payload
    rest = {name: value for name, value in payload.items() if name not in _Payload.model_fields}
    return rest | _UNREADABLE
