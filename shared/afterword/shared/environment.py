"""Reading a record of settings from environment variables.

Names of ours begin with `AFTERWORD_`; an unknown one is refused, since a setting that is
misspelt is a setting that is missing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from afterword.shared.errors import Misconfigured

T = TypeVar("T", bound=BaseModel)

PREFIX = "AFTERWORD_"

#: Read under their providers' own names, as their SDKs do.
FOREIGN = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "MEM0_API_KEY", "MEM0_HOST")


def read(settings: type[T], env: Mapping[str, str]) -> T:
    """Return the settings that the variables give; raise `Misconfigured` naming the variable."""
    values = {name.lower(): env[name] for name in FOREIGN if env.get(name)}
    for name in env:
        if name.startswith(PREFIX):
            values[_field(settings, name)] = env[name]
    try:
        return settings.model_validate(values)
    except ValidationError as error:
        raise _misconfigured(error) from None


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field.upper() in FOREIGN else PREFIX + field.upper()


def table(settings: type[BaseModel]) -> str:
    """Return all settings as a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "" if field.default_factory or field.default is None else f"`{field.default}`"
        rows.append(f"| `{variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)


def _field(settings: type[BaseModel], name: str) -> str:
    field = name.removeprefix(PREFIX).lower()
    if variable(field) != name or field not in settings.model_fields:
        known = [variable(known) for known in settings.model_fields]
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Misconfigured(name, f"there is no such setting{hint}")
    return field


def _misconfigured(error: ValidationError) -> Misconfigured:
    first = error.errors(include_input=False, include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    return Misconfigured(variable(str(first["loc"][0])), reason[:1].lower() + reason[1:])
