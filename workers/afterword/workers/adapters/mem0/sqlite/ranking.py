"""How memories are ranked: cosine and BM25, fused into one score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.intp]

#: BM25's usual constants: how soon repeats stop to count, how much a long text is held back.
K1 = 1.2
B = 0.75


@dataclass(frozen=True, slots=True)
class Scale:
    """How the cosines of one embedder are read.

    Cosines from `floor` to `floor + span` become 0 to 1; the best match by words adds
    `word_weight` to that. The defaults suit an embedder whose cosines use the whole range.
    """

    floor: float = 0.0
    span: float = 1.0
    word_weight: float = 0.5


def bm25(found: Iterable[Places], lengths: Floats) -> Floats:
    """Return how well each text matches by words, 0 for no match.

    `found` lists for each word asked for the distinct places of the texts that hold it;
    `lengths` are the texts' counts of words. A word counts once however often a text repeats it.
    """
    scores = np.zeros(len(lengths), np.float32)
    if not len(lengths):
        return scores
    relative = lengths / max(float(lengths.mean()), 1.0)
    credit = (K1 + 1) / (1 + K1 * (1 - B + B * relative))
    for places in found:
        rare = np.log1p((len(lengths) - len(places) + 0.5) / (len(places) + 0.5))
        scores[places] += np.float32(rare) * credit[places]
    return scores


def fuse(cosines: Floats, matches: Floats, scale: Scale) -> Floats:
    """Return one score from 0 to 1 for each text, from its cosine and its BM25 score."""
    near = np.clip((cosines - scale.floor) / scale.span, 0, 1)
    best = float(matches.max(initial=0.0))
    share = matches / best if best else matches
    score: Floats = (near + scale.word_weight * share) / (1 + scale.word_weight)
    return score


def best_first(scores: Floats, most: int) -> Places:
    """Return the places of the `most` highest scores, best first, of equal ones the later."""
    ascending = np.argsort(scores, kind="stable")
    return ascending[::-1][:most]
