"""What is wrong with a value that a model of pydantic refuses, as all of Afterword says it."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError

_SHOULD = re.compile(r"^\w+ should ")
_INTO = re.compile(r", (?:unable to|got a) .*", re.DOTALL)


def first_error(error: ValidationError) -> Any:
    """Return the first of the errors, without the value that was refused."""
    return error.errors(include_input=False, include_url=False, include_context=False)[0]


def reason_of(error: ValidationError) -> str:
    """Return what is wrong in the first place that is: "must be ...", and not what stood there."""
    first = first_error(error)
    match first["type"]:
        case "extra_forbidden":
            return "unknown field"
        case "missing":
            return "is missing"
    message = first["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    return _INTO.sub("", _SHOULD.sub("must ", message, count=1))
