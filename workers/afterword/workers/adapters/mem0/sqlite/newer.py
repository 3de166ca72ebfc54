"""Finds the newer statement of a fact that changed, by the older one.

«I work for a bank in Leeds» answers a question about the job; «I quit, I am a teacher now» often
has little in common with the question, but much with what it replaces. So a memory that was found
lends its score to the newer memory that is nearest to it, if that stands out and this one is also
the older one that is nearest to it: a change refers to one statement, chatter about a subject has
many neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.ranking import (
    LEND_S,
    Floats,
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
WordsInCommon = Callable[[Positions, Positions], Sequence[Floats]]


def lift_newer(scores: Floats, cached: OwnerVectors, words: WordsInCommon) -> Floats:
    """Return the scores of an owner's memories, raised for what may replace one that was found.

    Neighbours in a conversation replace nothing: they go on about what was just said.
    """
    if len(scores) <= _FIRST:
        return scores
    best, lifted = best_first(scores, _FOUND), scores.copy()
    highest = np.nextafter(scores[best[_FIRST - 1]], np.float32(0))
    middle = np.median(scores)
    gains = np.zeros_like(scores)
    for found, newer, distance in _pairs(best, np.sort(best_first(scores, _POOL)), cached, words):
        share = min(1.0, (distance - _NEAR) / (_VERY_NEAR - _NEAR))
        # A pair may be found by both of its statements together that is found by neither alone.
        worth = share * (scores[found] + max(0.0, scores[newer] - middle))
        if worth > scores[newer]:
            gains[newer] = max(gains[newer], worth)
    most = best_first(gains, _GAINING)
    lifted[most] = np.maximum(scores[most], np.minimum(gains[most], highest))
    return lifted


def _pairs(
    best: Positions, pool: Positions, cached: OwnerVectors, words: WordsInCommon
) -> Iterator[tuple[int, int, float]]:
    """Yield each of the best that has one, its newer statement, and how far that stands out."""
    vectors, places = cached.vectors.at(pool), np.searchsorted(pool, best)
    all_places = np.arange(len(pool))
    near = vectors[places] @ vectors.T
    for rank, common in enumerate(words(best[:_BY_WORDS], pool)):
        near[rank] -= np.expm1(-common)
    others = near[places[:, None] != all_places].reshape(len(best), -1)
    near[places[:, None] >= all_places] = -np.inf
    near[_neighbours(cached, best, pool)] = -np.inf
    nearest = near.argmax(axis=1)
    deviations = np.maximum(others.std(axis=1), _LEAST_DEVIATION)
    distances = (near[np.arange(len(best)), nearest] - others.mean(axis=1)) / deviations
    for rank in np.flatnonzero(distances > _NEAR).tolist():
        if _nearest_older(cached, pool, vectors, int(nearest[rank])) == places[rank]:
            yield int(best[rank]), int(pool[nearest[rank]]), float(distances[rank])


def _nearest_older(cached: OwnerVectors, pool: Positions, vectors: Floats, place: int) -> int:
    """Return the place in the pool of the older memory that means most alike."""
    near = vectors[:place] @ vectors[place]
    near[_neighbours(cached, pool[place : place + 1], pool[:place])[0]] = -1
    return int(near.argmax())


def _neighbours(cached: OwnerVectors, some: Positions, pool: Positions) -> NDArray[np.bool_]:
    """Return, for each of some memories, which of a pool are of its conversation and time."""
    apart = np.abs(cached.times[some, None] - cached.times[pool])
    close: NDArray[np.bool_] = apart <= LEND_S
    close &= cached.conversations[some, None] == cached.conversations[pool]
    return close
