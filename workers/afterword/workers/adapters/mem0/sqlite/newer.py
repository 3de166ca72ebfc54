"""Finds the newer statement of a fact that changed, by the older one.

«I work for a bank in Leeds» answers a question about the job; «I quit, I am a teacher now» often
has little in common with the question, but much with what it replaces. So a memory that was found
lends its score to the newer memory that is nearest to it, if that stands out and this one is also
the older one that is nearest to it: a change refers to one statement, chatter about a subject has
many neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from afterword.workers.adapters.mem0.sqlite.ranking import (
    LEND_S,
    Floats,
    Marks,
    Positions,
    best_first,
)
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors

#: The newer statements of so many of the best are looked for, among so many memories; by words in
#: common, too, of so many of the best.
_FOUND, _POOL, _BY_WORDS = 30, 1000, 5

#: So many gain, at most, and come after so many of the best: other facts keep their places.
_GAINING, _FIRST = 3, 5

#: From the first distance on, in standard deviations of the nearness of all others, a newer memory
#: gains something; from the second on all that it can. Where all are alike, none stands out.
_NEAR, _VERY_NEAR, _LEAST_DEVIATION = 2.5, 5.0, 0.05

#: What the words of each memory at some positions are worth in those at other positions.
WordsInCommon = Callable[[Positions, Positions], Floats]


class _Pool:
    """Some memories of an owner, oldest first; places count from 0 among them."""

    def __init__(self, cached: OwnerVectors, positions: Positions) -> None:
        self.positions = positions
        self._vectors = cached.vectors.at(positions)
        self._times = cached.times[positions]
        self._conversations = cached.conversations[positions]

    def products(self, places: Positions) -> Floats:
        """Return the products of the vectors at some places with all."""
        products: Floats = self._vectors[places] @ self._vectors.T
        return products

    def neighbours(self, places: Positions) -> Marks:
        """Return, for each of some memories, which are of its conversation and time."""
        close: Marks = np.abs(self._times[places, None] - self._times) <= LEND_S
        close &= self._conversations[places, None] == self._conversations
        return close

    def nearest_older(self, places: Positions) -> Positions:
        """Return the places of the older memories that mean most alike."""
        near = self.products(places)
        near[self.neighbours(places)] = -1
        for row, place in zip(near, places.tolist(), strict=True):
            row[place:] = -np.inf
        found: Positions = near.argmax(axis=1)
        return found


def lift_newer(scores: Floats, cached: OwnerVectors, words: WordsInCommon) -> Floats:
    """Return the scores of an owner's memories, raised for what may replace one that was found.

    Neighbours in a conversation replace nothing: they go on about what was just said.
    """
    if len(scores) <= _FIRST:
        return scores
    ranked, lifted = best_first(scores, _POOL), scores.copy()
    highest = np.nextafter(scores[ranked[_FIRST - 1]], np.float32(0))
    for newer, gain in _gains(scores, ranked, cached, words).items():
        lifted[newer] = max(scores[newer], min(np.float32(gain), highest))
    return lifted


def _gains(
    scores: Floats, ranked: Positions, cached: OwnerVectors, words: WordsInCommon
) -> Mapping[int, float]:
    """Return the scores of the memories that gain most, by position."""
    pool = _Pool(cached, np.sort(ranked))
    best = ranked[:_FOUND]
    places = np.searchsorted(pool.positions, best)
    nearest, distances = _newer_that_stand_out(
        pool, places, words(best[:_BY_WORDS], pool.positions)
    )
    likely = np.flatnonzero(distances > _NEAR)
    newer = pool.positions[nearest[likely]]
    shares = np.minimum((distances[likely] - _NEAR) / (_VERY_NEAR - _NEAR), 1)
    # A pair may be found by both of its statements together that is found by neither alone.
    beyond = np.maximum(scores[newer] - _middle(scores), 0)
    worth = shares * (scores[best[likely]] + beyond)
    gaining = np.flatnonzero(worth > scores[newer])
    olders = pool.nearest_older(nearest[likely[gaining]])
    chosen = gaining[olders == places[likely[gaining]]]
    gains: dict[int, float] = {}
    most_first = sorted(zip(worth[chosen].tolist(), newer[chosen].tolist(), strict=True))[::-1]
    for gain, position in most_first:
        if len(gains) < _GAINING:
            gains.setdefault(position, gain)
    return gains


def _newer_that_stand_out(
    pool: _Pool, places: Positions, common: Floats
) -> tuple[Positions, Floats]:
    """Return the newer memory that is nearest to each of some, and how far that stands out."""
    rows = np.arange(len(places))
    near = pool.products(places)
    near[: len(common)] -= np.expm1(-common)
    others = near.shape[1] - 1
    means = (near.sum(axis=1) - near[rows, places]) / others
    near[rows, places] = means
    apart = near - means[:, None]
    deviations = np.sqrt(np.einsum("ij,ij->i", apart, apart) / others)
    for row, place in zip(near, places.tolist(), strict=True):
        row[: place + 1] = -np.inf
    near[pool.neighbours(places)] = -np.inf
    nearest = near.argmax(axis=1)
    return nearest, (near[rows, nearest] - means) / np.maximum(deviations, _LEAST_DEVIATION)


def _middle(scores: Floats) -> np.float32:
    half = len(scores) // 2
    halves = np.partition(scores, half)
    below = halves[half] if len(scores) % 2 else halves[:half].max()
    middle: np.float32 = (below + halves[half]) / 2
    return middle
