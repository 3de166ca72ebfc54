"""The base of the records of settings."""

from __future__ import annotations

from typing import Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)

from afterword.shared import environment


class Record(BaseModel):
    """A frozen record of settings, whose errors name the variable and never the value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="wrap")
    @classmethod
    def _named_in_errors(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        """Raise `Misconfigured` with the name of the variable, in code as from the environment."""
        if not isinstance(values, dict):
            return validate(values)  # an argument of a call, which names it
        try:
            return validate(values)
        except ValidationError as error:
            raise environment.misconfigured(error) from None
