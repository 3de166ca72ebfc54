"""mem0's filters, reduced to what the embedded store supports: one owner and equalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_OPERATORS = frozenset({"AND", "OR", "NOT", "$and", "$or", "$not"})


@dataclass(frozen=True, slots=True)
class Filters:
    """Selects memories of one owner: of one turn if `turn_id` is set, with these payload values."""

    owner: str
    turn_id: str | None
    payload: Mapping[str, str | float]

    @classmethod
    def parse(cls, filters: Mapping[str, Any] | None) -> Filters:
        """Read mem0's filters; raise `ValueError` without an owner or for other than equality.

        A filter that is only partly understood would return memories it should not.
        """
        equal = {key: value for key, value in (filters or {}).items() if key != "user_id"}
        for key, value in equal.items():
            if key in _OPERATORS or not isinstance(value, (str, int, float)) or value == "*":
                raise ValueError("the embedded store supports equality filters only")
        turn_id = equal.pop("turn_id", None)
        return cls(required_owner(filters or {}), None if turn_id is None else str(turn_id), equal)

    def match(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a payload of this owner and turn has the required values."""
        return all(payload.get(key) == value for key, value in self.payload.items())

    @property
    def select_all(self) -> bool:
        """Whether all memories of the owner are selected."""
        return self.turn_id is None and not self.payload


def required_owner(fields: Mapping[str, Any]) -> str:
    """Return the `user_id` of a filter or payload; raise `ValueError` if there is none."""
    owner = fields.get("user_id")
    if not isinstance(owner, str) or not owner:
        raise ValueError("the embedded store needs a user_id")
    return owner
