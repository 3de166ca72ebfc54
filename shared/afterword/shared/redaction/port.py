"""The port of redaction: whatever finds secrets in a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Finding(NamedTuple):
    """A secret in a text: its kind, a word such as `card_number`, and where it stands."""

    kind: str
    start: int
    end: int


class Redactor(Protocol):
    """Finds secrets. Implement it to find others than Afterword does."""

    def find(self, text: str) -> Iterable[Finding]:
        """Return the secrets of a text, in any order; they may overlap.

        Called on the caller's thread with texts of up to a megabyte, for every message and reply:
        it must be quick, and call nothing that can fail. The same text must give the same answer.
        """
        ...
