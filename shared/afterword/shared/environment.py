"""Reads settings from environment variables.

Our variables begin with `AFTERWORD_`. An unknown one is refused: a misspelt setting would
otherwise be ignored. Those that Kubernetes adds for a Service are no settings, and are left out.
"""

from __future__ import annotations

import difflib
import logging
import re
from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from afterword.shared.errors import Misconfigured
from afterword.shared.urls import PROXY, parse_url
from afterword.shared.validation import first_error, reason_of

T = TypeVar("T", bound=BaseModel)

_log = logging.getLogger(__name__)

PREFIX = "AFTERWORD_"

#: Read under the names that the providers' own SDKs use.
FOREIGN = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "MEM0_API_KEY", "MEM0_HOST")

#: What Kubernetes sets in each pod for a Service called `afterword` or `afterword-...`, in the
#: manner of Docker's links; see "Accessing the Service" in its documentation.
_SERVICE_LINK = re.compile(
    r"AFTERWORD_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?"
    r"|PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?)"
)

#: Read by the HTTP clients of the providers, in lower or upper case.
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy"})


def read(settings: type[T], env: Mapping[str, str]) -> T:
    """Return the settings that the variables set; raise `Misconfigured` naming the variable."""
    values = {name.lower(): env[name] for name in FOREIGN if env.get(name)}
    for name in env:
        if name.startswith(PREFIX) and not _is_service_link(settings, name):
            values[_field(settings, name)] = env[name]
    return settings.model_validate(values)


def _is_service_link(settings: type[BaseModel], name: str) -> bool:
    """Return whether Kubernetes has set a variable, unless it is a setting after all."""
    known = name.removeprefix(PREFIX).lower() in settings.model_fields
    found = not known and _SERVICE_LINK.fullmatch(name) is not None
    if found:
        _log.debug("%s is no setting: Kubernetes sets it for a Service", name)
    return found


def check_proxies(env: Mapping[str, str]) -> None:
    """Raise `Misconfigured` naming a proxy variable that an HTTP client could not use."""
    for name, value in env.items():
        if name.lower() in _PROXIES and value:
            try:
                parse_url(value if "://" in value else f"http://{value}", PROXY)
            except ValueError as error:
                raise Misconfigured(name, str(error)) from None


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field.upper() in FOREIGN else PREFIX + field.upper()


def section(record: type[BaseModel]) -> str:
    """Return the settings of one record as Markdown: heading, purpose, and a table."""
    name = record.__name__.removesuffix("Settings")
    rows = [f"## {name}", "", record.__doc__ or "", ""]
    rows += ["| variable | default | meaning |", "|---|---|---|"]
    for field, info in record.model_fields.items():
        default = "" if info.default_factory or info.default is None else f"`{info.default}`"
        rows.append(f"| `{variable(field)}` | {default} | {info.description} |")
    return "\n".join(rows)


def _field(settings: type[BaseModel], name: str) -> str:
    field = name.removeprefix(PREFIX).lower()
    if variable(field) != name or field not in settings.model_fields:
        known = [variable(known) for known in settings.model_fields]
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Misconfigured(name, f"there is no such setting{hint}")
    return field


def misconfigured(error: ValidationError) -> Misconfigured:
    """Return the error for the first variable that is not valid; it never repeats a value."""
    location = first_error(error)["loc"]
    return Misconfigured(variable(str(location[0])) if location else "settings", reason_of(error))
