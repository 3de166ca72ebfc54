"""Reads the fields of the memories that mem0 returns, which are alike in all backends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

Row = Mapping[str, Any]


def owner_of(row: Row) -> str:
    """Return the owner that a memory names, "" if it names none."""
    return row.get("user_id") or ""


def turn_id_of(row: Row) -> str | None:
    """Return the turn that a memory came from, None if it names none."""
    return metadata_of(row).get("turn_id")


def metadata_of(row: Row) -> Mapping[str, Any]:
    """Return the metadata that we gave mem0 with the turn, empty if there is none."""
    return row.get("metadata") or {}


def ids_by_attempt(rows: Iterable[Row]) -> dict[str, list[str]]:
    """Return the ids of the memories, grouped by the attempt that added them."""
    attempts: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        attempts[metadata_of(row).get("attempt") or ""].append(row["id"])
    return dict(attempts)


def parse_time(iso: str) -> datetime:
    """Read a time as mem0 writes it; without a zone it is UTC."""
    at = datetime.fromisoformat(iso)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
