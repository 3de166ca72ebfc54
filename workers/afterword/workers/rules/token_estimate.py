"""How many tokens a call will use: guessed from its text, corrected by earlier answers."""

from __future__ import annotations

import math
from dataclasses import dataclass

from afterword.shared.contracts import Usage

#: Output tokens of the first calls, of which nothing is known yet.
FIRST_OUTPUT = 1024

#: The weight of one more answer in the averages.
_WEIGHT = 1 / 32

#: Bounds of what providers count for one token of our estimate: prompts may come from their cache.
_LEAST, _MOST = 0.01, 10.0


@dataclass(frozen=True, slots=True)
class TokenEstimate:
    """What answers of one kind used so far, on average.

    `counted` are input tokens that count against a rate limit, `guessed` what was estimated of the
    same prompts. All are None before the first answer.
    """

    counted: float | None = None
    guessed: float | None = None
    output: float | None = None

    def input_tokens(self, guess: int) -> int:
        """Return how many input tokens of a prompt will count, given a guess from its text."""
        ratio = 1.0
        if self.counted is not None and self.guessed:
            ratio = min(max(self.counted / self.guessed, _LEAST), _MOST)
        return max(1, math.ceil(guess * ratio))

    def output_tokens(self, most: int) -> int:
        """Return how many output tokens an answer of at most so many will have."""
        mean = FIRST_OUTPUT if self.output is None else self.output
        return max(1, min(most, math.ceil(mean)))

    def corrected(self, guess: int, usage: Usage) -> TokenEstimate:
        """Return the estimate after one more answer. What is read from the cache does not count."""
        return TokenEstimate(
            _average(self.counted, usage.input + usage.cache_write),
            _average(self.guessed, guess),
            _average(self.output, usage.output),
        )


def _average(before: float | None, value: int) -> float:
    return float(value) if before is None else before + (value - before) * _WEIGHT
