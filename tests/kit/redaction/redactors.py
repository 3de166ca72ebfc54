"""Redactors of users' own, as `AFTERWORD_REDACTOR` names them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from afterword.shared.redaction.port import Finding

#: The word that they find, or whose text makes them fail.
WORD = "marmalade"


class Words:
    """Finds one word, under a name that is no word, and says more than the text holds."""

    def find(self, text: str) -> Iterator[Finding]:
        """Yield where the word stands."""
        at = text.find(WORD)
        if at >= 0:
            yield Finding("Jam & Co", at, at + 10_000)
            yield Finding("jam", at, at + len(WORD))
            yield Finding("jam", at - 10_000, 0)


class Broken:
    """Fails on texts that hold the word, and repeats them in its error."""

    def find(self, text: str) -> list[Finding]:
        """Raise an error."""
        if WORD in text:
            raise ValueError(text)
        return []


class Noting:
    """Finds nothing, and notes what it was given to look at."""

    looked_at: ClassVar[list[str]] = []

    def find(self, text: str) -> list[Finding]:
        """Note a text."""
        self.looked_at.append(text)
        return []


class Failing:
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError(WORD)


class Empty:
    """Has no method `find`."""
