"""The compose file as `docker compose` reads it: interpolated, or refused for want of a value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

COMPOSE_FILE = ROOT / "docker-compose.yml"

#: `$$`, `${NAME}` with an operator of ours and its operand, or what else a `$` begins.
_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?P<how>:?[-?])?(?P<else>[^}]*)\}|)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class MissingValue(Exception):
    """A variable that the file requires is not set, or empty."""


@dataclass(frozen=True)
class Variable:
    """One use of a variable: `${name}`, with how it stands in for what is not set."""

    name: str
    how: str | None
    otherwise: str


def variables(text: str) -> list[Variable]:
    """Return the uses of variables in a text."""
    found = [match for match in _VARIABLE.finditer(text) if not match["dollar"]]
    assert all(match["name"] for match in found), "a lone $ is an error"
    return [Variable(match["name"], match["how"], match["else"]) for match in found]


def interpolated(value: Any, environ: Mapping[str, str]) -> Any:
    """Return a value of the file with its variables filled in, or raise `MissingValue`."""
    if isinstance(value, dict):
        return {name: interpolated(inner, environ) for name, inner in value.items()}
    if isinstance(value, list):
        return [interpolated(inner, environ) for inner in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: _filled(match, environ), value)
    return value


def document(path: Path = COMPOSE_FILE) -> dict[str, Any]:
    """Return the file, its anchors resolved and its variables as they stand."""
    read = yaml.safe_load(path.read_text())
    assert isinstance(read, dict)
    return read


def environment(service: Mapping[str, Any], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a service finds in its environment; a name without a value is passed on."""
    asked = interpolated(service.get("environment", {}), environ)
    given = {name: environ.get(name) if value is None else value for name, value in asked.items()}
    return {name: str(value) for name, value in given.items() if value is not None}


def seconds(span: str) -> float:
    """Return a time span such as `1m30s`."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smh])", span)
    assert "".join(number + unit for number, unit in parts) == span, span
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def _filled(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match["dollar"]:
        return "$"
    assert match["name"], "a lone $ is an error"
    how = match["how"] or ""
    value = environ.get(match["name"])
    if value or (value is not None and not how.startswith(":")):
        return value
    if how.endswith("?"):
        raise MissingValue(f"{match['name']}: {match['else']}")
    return str(match["else"]) if how else ""
