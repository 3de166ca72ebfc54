"""Counts the tokens of one attempt to reply or to store, so that one without success costs too."""

from __future__ import annotations

from collections.abc import Sequence

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
        self._model = ""
        self._calls: list[tuple[str, Usage]] = []

    def begin(self, model: str) -> None:
        """Count for a new call of a model; the one before it, if any, gave no answer."""
        if self._call is not NOTHING:
            self._calls.append((self._model, self._call))
        self._earlier, self._call, self._model = self.unanswered, NOTHING, model

    def tell(self, usage: Usage) -> None:
        """Note what the call has used so far, all of it."""
        self._call = usage

    @property
    def calls(self) -> Sequence[tuple[str, Usage]]:
        """The calls until now, each with its model."""
        return [*self._calls, (self._model, self._call)]

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
        self._calls.clear()
