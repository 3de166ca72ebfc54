"""Finds the newer statement of a fact that changed, by the older one.

«I work for a bank in Leeds» answers a question about the job; «I quit, I am a teacher now» often
has little in common with the question, but much with what it replaces. So a memory that was found
lends its score to the newer memory that is nearest to it, if it is also the older one that is
nearest to that: a change refers to one statement, chatter about a subject has many neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from afterword.workers.adapters.mem0.sqlite.ranking import (
    LEND_S,
    Floats,
    Positions,
    best_first,
)
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors

#: Of so many memories, the best, the newer statement is looked for among so many.
_FOUND, _POOL = 5, 1000

#: From the first nearness on a newer memory gains; from the second on it gains all that it can,
#: this share of the older one's score. Two memories of one subject are 0.4 to 0.6 near.
_NEAR, _VERY_NEAR, _LENT = 0.55, 0.8, 0.95

#: What the words of each memory at some positions are worth in those at other positions.
WordsInCommon = Callable[[Positions, Positions], Sequence[Floats]]


def lift_newer(scores: Floats, cached: OwnerVectors, words: WordsInCommon) -> Floats:
    """Return the scores of an owner's memories, raised for what may replace one that was found.

    Neighbours in a conversation replace nothing: they go on about what was just said.
    """
    pool = np.sort(best_first(scores, _POOL))
    vectors, lifted = cached.vectors.at(pool), scores.copy()
    best = best_first(scores, _FOUND)
    for found, common in zip(best.tolist(), words(best, pool), strict=True):
        place = int(np.searchsorted(pool, found))
        near = vectors @ vectors[place] - np.expm1(-common)
        near[: place + 1] = -1
        near[_neighbours(cached, pool, found)] = -1
        nearest = int(near.argmax())
        if near[nearest] > _NEAR and _nearest_older(cached, pool, vectors, nearest) == place:
            share = _LENT * min(1.0, float(near[nearest] - _NEAR) / (_VERY_NEAR - _NEAR))
            position = pool[nearest]
            lifted[position] = max(lifted[position], np.float32(share) * scores[found])
    return lifted


def _nearest_older(cached: OwnerVectors, pool: Positions, vectors: Floats, place: int) -> int:
    """Return the place in the pool of the older memory that means most alike."""
    near = vectors[:place] @ vectors[place]
    near[_neighbours(cached, pool[:place], int(pool[place]))] = -1
    return int(near.argmax())


def _neighbours(cached: OwnerVectors, pool: Positions, position: int) -> Positions:
    """Return the places in the pool of what was said in the same conversation at that time."""
    close = np.abs(cached.times[pool] - cached.times[position]) <= LEND_S
    close &= cached.conversations[pool] == cached.conversations[position]
    return np.flatnonzero(close)
