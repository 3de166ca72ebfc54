"""How mem0's platform finds memories, as far as its stand-in goes: filters, words, scores."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]


class Refused(Exception):
    """The platform does not take a request."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def row(row_id: str, text: str, body: Json) -> Json:
    """Return a memory as the platform gives it, made of the body of an add."""
    at = datetime.fromtimestamp(body.get("timestamp", 0), UTC).isoformat()
    return {
        "id": row_id,
        "memory": text,
        "user_id": body["user_id"],
        "metadata": body.get("metadata"),
        "categories": [],
        "created_at": at,
        "updated_at": at,
    }


def owner(filters: Json) -> str:
    """Return the user that filters name; raise `Refused` if they name nobody."""
    for clause in (filters, *filters.get("AND", [])):
        if clause.get("user_id"):
            return str(clause["user_id"])
    raise Refused(400, "filters must hold an entity id")


def matches(row: Json, filters: Json) -> bool:
    """Tell whether a memory passes; custom keys are known inside `metadata` only."""
    return all(_passes(row, key, wanted) for key, wanted in filters.items())


def _passes(row: Json, key: str, wanted: Any) -> bool:
    match key:
        case "AND":
            return all(matches(row, clause) for clause in wanted)
        case "OR":
            return any(matches(row, clause) for clause in wanted)
        case "metadata":
            return all((row["metadata"] or {}).get(name) == value for name, value in wanted.items())
        case "user_id":
            return bool(row["user_id"] == wanted)
        case _:
            raise Refused(400, f"unknown filter {key}")


def search(rows: Iterable[Json], body: Json, likeness: Callable[[str, str], float]) -> list[Json]:
    """Return the memories that are like the query, best first."""
    if not body["query"]:
        raise Refused(400, "query may not be blank")
    found = [
        row | {"score": likeness(body["query"], row["memory"])}
        for row in rows
        if matches(row, body["filters"])
    ]
    near = [row for row in found if row["score"] >= body.get("threshold", 0.1)]
    return sorted(near, key=lambda row: -float(row["score"]))[: body.get("top_k", 10)]


def words_in_common(one: str, other: str) -> float:
    """Return the share of their words that two texts have in common."""
    asked, held = _words(one), _words(other)
    return len(asked & held) / max(len(asked | held), 1)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
