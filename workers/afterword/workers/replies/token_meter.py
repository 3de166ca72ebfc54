"""Counts the tokens of one attempt, so that those without a reply cost what they cost."""

from __future__ import annotations

from afterword.shared.contracts import Usage

NOTHING = Usage()


class TokenMeter:
    """The tokens of one attempt, which may call several models, one after the other.

    A provider tells input tokens at the beginning of a call and output tokens at its end, so a call
    that is cut off counts as far as it was told.
    """

    def __init__(self) -> None:
        self._earlier = NOTHING
        self._call = NOTHING

    def begin(self) -> None:
        """Count for a new call; the one before it, if any, gave no answer."""
        self._earlier, self._call = self.unanswered, NOTHING

    def tell(self, usage: Usage) -> None:
        """Note what the call has used so far, all of it."""
        self._call = usage

    @property
    def call(self) -> Usage:
        """What the call has used so far."""
        return self._call

    @property
    def earlier(self) -> Usage | None:
        """What the calls before the last one used; None if that is nothing."""
        return None if self._earlier is NOTHING else self._earlier

    @property
    def unanswered(self) -> Usage:
        """What all calls used."""
        return self._call if self._earlier is NOTHING else self._earlier + self._call

    def settle(self) -> None:
        """Begin anew: all of it is counted elsewhere now."""
        self._earlier = self._call = NOTHING
