"""Filters as mem0 passes them, read as one owner and plain equalities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_LOGIC = frozenset({"AND", "OR", "NOT", "$and", "$or", "$not"})


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose memories are meant, of which turn if of one only, and with what in their payload."""

    owner: str
    turn_id: str | None
    equal: Mapping[str, str | float]

    @classmethod
    def read(cls, filters: Mapping[str, Any] | None) -> Asked:
        """Read mem0's filters; raise `ValueError` for anything but bare equality, or no owner.

        Refused loudly, because a filter that is half understood shows memories of others.
        """
        equal = {key: value for key, value in (filters or {}).items() if key != "user_id"}
        for key, value in equal.items():
            if key in _LOGIC or not isinstance(value, (str, int, float)) or value == "*":
                raise ValueError("the embedded store knows bare equality only")
        turn_id = equal.pop("turn_id", None)
        return cls(owner_in(filters or {}), None if turn_id is None else str(turn_id), equal)

    def admits(self, payload: Mapping[str, Any]) -> bool:
        """Return whether a memory of this owner and turn is one of those meant."""
        return all(payload.get(key) == value for key, value in self.equal.items())

    @property
    def everything(self) -> bool:
        """Return whether all of the owner's memories are meant."""
        return self.turn_id is None and not self.equal


def owner_in(named: Mapping[str, Any]) -> str:
    """Return the owner that a filter or a payload names; raise `ValueError` if it names none."""
    owner = named.get("user_id")
    if not isinstance(owner, str) or not owner:
        raise ValueError("the embedded store keeps memories by user_id, and none is given")
    return owner
