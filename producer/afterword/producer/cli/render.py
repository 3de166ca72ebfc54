"""How the command line shows things: as JSON for programs, as a table for people."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import click
from pydantic import BaseModel

from afterword.shared.ledger.dead_letter_records import DeadLetterFilter
from afterword.shared.ledger.records import Gate

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tenant_option = click.option("--tenant", default="default", show_default=True, help="The tenant.")


def plain(value: Any) -> Any:
    """Return a record as what JSON can hold: a key for each field, a filter as what was said."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, DeadLetterFilter):
        value = value.to_dict()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def print_json(value: Any) -> None:
    """Print a record as JSON."""
    click.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under a head, in columns."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def why(gate: Gate) -> str:
    """Return what shut a gate, and whose failure it was."""
    return f"{gate.code} ({gate.fault})"


def age(seconds: float) -> str:
    """Return a time span as people say it."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(0.0, seconds):.1f} s"
