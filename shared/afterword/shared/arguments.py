"""Checks what callers of the public Python API give, before anything is read or written.

A public call is decorated with `checked`, and its annotations say what each argument may be: the
types below, or any that pydantic knows. Nothing is converted, except that an enumeration may be
given by its value.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, ParamSpec, TypeVar, dataclass_transform, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    create_model,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError

from afterword.shared.contracts import Id, invalid_request, refuse
from afterword.shared.errors import InvalidRequest

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Record = TypeVar("Record")

#: A hundred years: a longest time that clocks, Redis and `datetime` can still count with.
LONGEST_S = 100 * 365 * 86_400.0

STRICT = ConfigDict(strict=True, arbitrary_types_allowed=True, hide_input_in_errors=True)

_EVENT_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")
_LARGEST_PART = 2**64 - 1
_GATE = re.compile(r"recall|remember|claude/.{1,200}")


def _clean_event_id(value: str) -> str:
    found = _EVENT_ID.fullmatch(value)
    parts = [int(part) for part in found.groups()] if found else []
    # Nothing can follow the largest id: Redis refuses to look for it.
    if not parts or max(parts) > _LARGEST_PART or min(parts) == _LARGEST_PART:
        raise refuse("must be the id of an event")
    return "-".join(map(str, parts))  # without leading zeros: the same id is the same text


def check_event_id(field: str, value: str) -> str:
    """Return the id of an event or entry in its shortest form; `InvalidRequest` if it is none."""
    try:
        return _clean_event_id(value)
    except PydanticCustomError as error:
        raise InvalidRequest(field, error.message()) from None


def _clean_time(value: datetime) -> datetime:
    if value.utcoffset() is None:
        raise refuse("must have a time zone")
    return value


def _clean_gate(value: str) -> str:
    if not _GATE.fullmatch(value) or not value.isprintable():
        raise refuse("must be recall, remember or claude/<model>")
    return value


def _clean_line(value: str) -> str:
    if not value.isprintable():
        raise refuse("must be one line of visible text")
    return value


#: A time span in seconds, from 0 to a hundred years.
Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, allow_inf_nan=False)]

#: How many to return, at most.
Limit = Annotated[int, Field(ge=1, le=1_000_000)]

#: The id of an event: the cursor of a stream.
EventId = Annotated[str, AfterValidator(_clean_event_id)]

#: The id of a job, a dead letter or a run, whether there is one or not.
AnyId = Annotated[str, StringConstraints(strict=True)]

#: A point in time with its time zone.
Moment = Annotated[datetime, AfterValidator(_clean_time)]

#: The name of a gate before a provider.
GateName = Annotated[str, AfterValidator(_clean_gate)]

#: A remark of one line.
Line = Annotated[str, Field(max_length=200), AfterValidator(_clean_line)]

#: For how long a gate is shut by hand.
ShutSeconds = Annotated[float, Field(ge=1, le=LONGEST_S, allow_inf_nan=False)]

__all__ = [
    "AnyId",
    "EventId",
    "GateName",
    "Id",
    "Limit",
    "Line",
    "Moment",
    "Seconds",
    "ShutSeconds",
    "check_event_id",
    "checked",
    "checked_record",
]


@dataclass_transform(frozen_default=True)
def checked_record(cls: type[Record]) -> type[Record]:
    """Make a class a frozen dataclass whose fields are checked when one is made.

    Raises `InvalidRequest` with the name of the first field that is not valid.
    """
    record: Any = dataclass(frozen=True, slots=True, config=STRICT)(cls)
    validate = record.__init__

    @functools.wraps(validate)
    def with_checks(self: Record, *args: Any, **kwargs: Any) -> None:
        try:
            validate(self, *args, **kwargs)
        except ValidationError as error:
            raise invalid_request(error) from None

    record.__init__ = with_checks
    checked_class: type[Record] = record
    return checked_class


def checked(call: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """Check the arguments of a method by its annotations when it is called.

    Raises `InvalidRequest` with the name of the first argument that is not valid, without
    repeating what it held. Generators and coroutines raise it when they are made, too.
    """
    signature = inspect.signature(call)
    model = functools.cache(lambda: _model_of(call, signature))

    @functools.wraps(call)
    def with_checks(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        given = signature.bind(*args, **kwargs).arguments
        owner = given.pop("self")
        try:
            valid = model().model_validate(given)
        except ValidationError as error:
            raise invalid_request(error) from None
        return call(owner, **{name: getattr(valid, name) for name in given})

    return with_checks


def _model_of(call: Callable[..., Any], signature: inspect.Signature) -> type[BaseModel]:
    """Return a model of the arguments; made at the first call, when every name is known."""
    hints = get_type_hints(call, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints[name], parameter.default if parameter.default is not parameter.empty else ...)
        for name, parameter in signature.parameters.items()
        if name != "self"
    }
    return create_model(call.__name__, __config__=STRICT, **fields)
