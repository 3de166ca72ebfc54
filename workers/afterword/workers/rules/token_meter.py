"""Counts the tokens of one attempt to reply or to store, so that one without success costs too."""

from __future__ import annotations

from collections.abc import Sequence

from afterword.shared.contracts import Usage
from afterword.shared.tokens import BYTES_PER_TOKEN

NOTHING = Usage()


class TokenMeter:
    """The tokens of one attempt, which may call several models, one after the other.

    A provider tells input tokens at the beginning of a call and output tokens at its end. The
    output of a call that is cut off is estimated by the text that had come.
    """

    def __init__(self) -> None:
        self._earlier = NOTHING
        self._call = NOTHING
        self._model = ""
        self._heard = 0
        self._calls: list[tuple[str, Usage]] = []

    def begin(self, model: str) -> None:
        """Count for a new call of a model; the one before it, if any, gave no answer."""
        if self.call is not NOTHING:
            self._calls.append((self._model, self.call))
        self._earlier, self._call, self._model = self.unanswered, NOTHING, model
        self._heard = 0

    def tell(self, usage: Usage) -> None:
        """Note what the call has used so far, all of it."""
        self._call = usage

    def hear(self, text: str) -> None:
        """Note a piece of text that the call has brought."""
        self._heard += len(text.encode(errors="replace"))

    def end(self) -> None:
        """Note that the call is whole: what was told is all that it used."""
        self._heard = 0

    @property
    def calls(self) -> Sequence[tuple[str, Usage]]:
        """The calls until now, each with its model."""
        return [*self._calls, (self._model, self.call)]

    @property
    def call(self) -> Usage:
        """What the call has used so far: nothing, if the provider tells no tokens."""
        heard = -(-self._heard // BYTES_PER_TOKEN)
        if heard <= self._call.output or self._call == NOTHING:
            return self._call
        return self._call.model_copy(update={"output": heard})

    @property
    def earlier(self) -> Usage | None:
        """What the calls before the last one used; None if that is nothing."""
        return None if self._earlier is NOTHING else self._earlier

    @property
    def unanswered(self) -> Usage:
        """What all calls used."""
        return self.call if self._earlier is NOTHING else self._earlier + self.call

    @property
    def is_settled(self) -> bool:
        """Whether there is nothing that is not counted elsewhere."""
        usage = self.unanswered
        return usage is NOTHING or usage == NOTHING

    def settle(self) -> None:
        """Begin anew: all of it is counted elsewhere now."""
        self._earlier = self._call = NOTHING
        self._heard = 0
        self._calls.clear()
