"""How memories are ranked: cosine similarity and BM25, combined into one score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Indexes into the arrays of an owner's memories.
Positions = NDArray[np.intp]

#: BM25's usual constants: how soon repeated words stop counting, and the penalty of long texts.
K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Scale:
    """How the cosines of one embedder become scores.

    Cosines from `floor` to `floor + span` are mapped to 0 to 1, and the best match by words adds
    `word_weight` to that. The defaults suit an embedder whose cosines use the whole range.
    """

    floor: float = 0.0
    span: float = 1.0
    word_weight: float = 0.5


def bm25(matches: Iterable[Positions], lengths: Floats) -> Floats:
    """Return the BM25 score of each text for a query, 0 for no match.

    `matches` holds, for each word of the query, the positions of the texts with that word;
    `lengths` the number of words of each text. Repeats of a word in a text do not count.
    """
    scores = np.zeros(len(lengths), np.float32)
    if not len(lengths):
        return scores
    relative = lengths / max(float(lengths.mean()), 1.0)
    credit = (K1 + 1) / (1 + K1 * (1 - B + B * relative))
    for positions in matches:
        rarity = np.log1p((len(lengths) - len(positions) + 0.5) / (len(positions) + 0.5))
        scores[positions] += np.float32(rarity) * credit[positions]
    return scores


def combine(cosines: Floats, word_scores: Floats, scale: Scale) -> Floats:
    """Return one score from 0 to 1 for each text, from its cosine and its BM25 score."""
    similarity = np.clip((cosines - scale.floor) / scale.span, 0, 1)
    best = float(word_scores.max(initial=0.0))
    share = word_scores / best if best else word_scores
    score: Floats = (similarity + scale.word_weight * share) / (1 + scale.word_weight)
    return score


def best_first(scores: Floats, count: int) -> Positions:
    """Return the positions of the `count` highest scores, best first; of equals the newer first."""
    ascending = np.argsort(scores, kind="stable")
    return ascending[::-1][:count]
