"""Whatever a model refuses is said in one way: what it must be, and not what it was."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import pytest
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from afterword.shared.environment import misconfigured
from afterword.shared.validation import reason_of

SECRET = "marmalade"


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


@pytest.mark.parametrize(
    ("of", "value", "reason"),
    [
        (Annotated[int, Field(gt=0)], 0, "must be greater than 0"),
        (Annotated[float, Field(le=600)], 700, "must be less than or equal to 600"),
        (int, SECRET, "must be a valid integer"),
        (bool, SECRET, "must be a valid boolean"),
        (datetime, SECRET, "must be a valid datetime or date"),
        (str, 1, "must be a valid string"),
        (Annotated[str, Field(min_length=1)], "", "must have at least 1 character"),
        (Annotated[list[int], Field(max_length=1)], [1, 2], "must have at most 1 item after"),
        (Annotated[str, Field(pattern="^a$")], SECRET, "must match pattern"),
        (Literal["a", "b"], SECRET, "must be 'a' or 'b'"),
        (AnyUrl, SECRET, "must be a valid URL"),
        (_Closed, {"size": 1, "colour": SECRET}, "unknown field"),
        (_Closed, {}, "is missing"),
    ],
)
def test_a_reason_says_what_must_be(of: Any, value: object, reason: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(of).validate_python(value)
    said = reason_of(refused.value)
    assert said.startswith(reason)
    assert SECRET not in said
    assert "should" not in said
    assert said in str(misconfigured(refused.value))
