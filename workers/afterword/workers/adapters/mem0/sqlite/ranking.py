"""How memories are ranked: what their meaning and their words have in common with a query."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Numbers = NDArray[np.int64]
Marks = NDArray[np.bool_]

#: Indexes into the arrays of an owner's memories.
Positions = NDArray[np.intp]

#: Where the tokens of one word of a query occur, and what such a match counts of the word.
Matches = Sequence[tuple[Positions, float]]

_WORTH = itemgetter(0)

#: BM25's usual constant for how soon more of a word stops counting, and a light penalty of texts
#: that are longer than the owner's others: the usual 0.75 hides what is said in a long message.
K1 = 1.2
B = 0.25

#: What a word that is in one of 600 memories adds, in similarity, is 0.2. This times the square of
#: how rare it is: a word that is in every tenth memory adds 0.03.
WORD_WEIGHT = 0.006

#: How much of its words a memory lends to the one before and after it, and to those beside them,
#: if they are of the same conversation and at most so many seconds apart.
LENT = (0.3, 0.15)
LEND_S = 3600

#: Of its meaning a memory lends only what it has above nine of ten others, so much of that share to
#: what follows, and so much to what was said before.
_LENDING, _TO_LATER, _TO_EARLIER = 0.9, 4 / 3, 2 / 3

#: How much of its words the end of a reply lends to the next memory, if that is a short answer.
REPLY_LENT = 0.5
_SHORT_ANSWER = 12

#: Memories that mean the same to this degree are nearly the same; the older one then loses up to
#: this much of its score, if the newer one is about as good.
_NEARLY, _LOSS, _AS_GOOD = 0.75, 0.5, 0.75

#: What a memory that only asks for work loses of its score, which is half of its similarity.
_REQUEST_LOSS = 0.05

#: Vectors that are reduced at once.
_SLICE = 512


@dataclass(frozen=True, slots=True)
class Scale:
    """How the vectors of one embedder become similarities from 0 to 1.

    `ignored` are directions that say nothing about meaning, such as those of languages, as
    orthonormal rows. Without them, cosines from `floor` to `floor + span` are mapped to 0 to 1.
    """

    floor: float = 0.0
    span: float = 1.0
    ignored: Floats | None = None

    def reduced(self, vectors: Floats) -> Floats:
        """Return the vectors without the ignored directions, of length 1.

        Many are reduced in slices that fit into the processor's cache: half the time.
        """
        rows = np.atleast_2d(vectors)
        reduced = np.empty(rows.shape, np.float32)
        for start in range(0, len(rows), _SLICE):
            part = reduced[start : start + _SLICE]
            part[:] = rows[start : start + _SLICE]
            if self.ignored is not None:
                part -= (part @ self.ignored.T) @ self.ignored
            lengths = np.sqrt(np.einsum("ij,ij->i", part, part))[:, None]
            part /= np.where(lengths > 0, lengths, np.float32(1))
        return reduced.reshape(vectors.shape)

    def similarity(self, cosines: Floats) -> Floats:
        """Return similarities for cosines of reduced vectors."""
        similarity: Floats = np.clip((cosines - self.floor) / self.span, 0, 1)
        return similarity


def credits_of(lengths: Floats) -> Floats:
    """Return what a word counts in texts of these numbers of words: less in a longer one."""
    mean = max(float(lengths.sum()) / max(len(lengths), 1), 1.0)
    credit: Floats = (K1 + 1) / (1 + K1 * (1 - B + B * (lengths / mean)))
    return credit


def word_points(words: Iterable[Matches], credit: Floats) -> Floats:
    """Return what each text's words are worth for a query: BM25 with the square of rarity.

    `words` holds, for each word of the query, the positions of the texts in which a token matches
    it, and the share that such a match counts: the best one counts. `credit` is what a word counts
    in each text. A word is worth the same whatever else matches, and repeats do not count.
    """
    points = np.zeros(len(credit), np.float32)
    for matches in words:
        best = np.zeros(len(credit), np.float32)
        for worth, positions in _least_first(matches, len(credit)):
            best[positions] = worth
        points += best
    return points * credit * np.float32(WORD_WEIGHT)


def words_in_common(
    queries: Sequence[Sequence[Matches]], credit: Floats, among: Positions
) -> Floats:
    """Return what the words of texts at some positions are worth for each of several queries."""
    places = np.full(len(credit), -1, np.intp)
    places[among] = np.arange(len(among))
    words = [matches for query in queries for matches in query]
    weighed = (
        (worth, row, places[positions])
        for row, matches in enumerate(words)
        for worth, positions in _least_first(matches, len(credit))
    )
    best = np.zeros((len(words), len(among) + 1), np.float32)  # the last column: all other texts
    for worth, row, columns in weighed:
        best[row, columns] = worth
    ends = np.cumsum([len(query) for query in queries])[:-1]
    points = [rows[:, :-1].sum(axis=0) for rows in np.split(best, ends)]
    return np.array(points, np.float32) * credit[among] * np.float32(WORD_WEIGHT)


def _least_first(matches: Matches, count: int) -> list[tuple[float, Positions]]:
    """Return what each token of a word is worth, the best one last, and where it is."""
    weighed = []
    for positions, share in matches:
        rarity = math.log1p((count - len(positions) + 0.5) / (len(positions) + 0.5))
        weighed.append((share * rarity * rarity, positions))
    return sorted(weighed, key=_WORTH)


def neighbours(conversations: Numbers, times: Numbers) -> Sequence[Marks]:
    """Return, for each distance over which neighbours lend, which texts have one so much later.

    The arrays are in the order in which the texts were stored.
    """
    near = []
    for distance in range(1, len(LENT) + 1):
        earlier, later = slice(None, -distance), slice(distance, None)
        close = np.abs(times[later] - times[earlier]) <= LEND_S
        near.append(close & (conversations[later] == conversations[earlier]))
    return near


def lend(points: Floats, near: Sequence[Marks]) -> Floats:
    """Return the points of words with what neighbours lend to each other."""
    return _lent(points, points, near, later=1, earlier=1)


def lend_meaning(similarity: Floats, near: Sequence[Marks]) -> Floats:
    """Return the similarities with what neighbours that stand out lend to each other.

    What was just said is not repeated: "I saw the doctor." - "He says I must eat less salt." Among
    ten or fewer none stands out.
    """
    if not len(similarity):
        return similarity
    place = math.ceil(_LENDING * (len(similarity) - 1))
    above = np.maximum(similarity - np.partition(similarity, place)[place], np.float32(0))
    lent = _lent(similarity, above, near, later=_TO_LATER, earlier=_TO_EARLIER)
    return np.minimum(lent, np.float32(1))


def _lent(
    kept: Floats, spare: Floats, near: Sequence[Marks], *, later: float, earlier: float
) -> Floats:
    lent = kept.copy()
    for distance, (share, close) in enumerate(zip(LENT, near, strict=True), start=1):
        lent[distance:] += np.float32(share * later) * close * spare[:-distance]
        lent[:-distance] += np.float32(share * earlier) * close * spare[distance:]
    return lent


def lend_replies(points: Floats, lengths: Floats, near: Sequence[Marks]) -> Floats:
    """Return what each text gains by the reply before it, which it may answer.

    `points` is what the reply to each text is worth by its words. A short answer alone says little:
    "Do you still swim?" - "Yes, twice a week."
    """
    gained = np.zeros_like(points)
    short = lengths[1:] <= _SHORT_ANSWER
    gained[1:] = np.float32(REPLY_LENT) * (near[0] & short) * points[:-1]
    return gained


def combine(similarity: Floats, points: Floats) -> Floats:
    """Return one score from 0 to 1 for each text: the mean of both, points levelling off at 1."""
    return ((similarity - np.expm1(-points)) / 2).astype(np.float32)


def after_others(scores: Floats, requests: Marks) -> Floats:
    """Return the scores of candidates, lowered for those that only ask for work.

    They resemble questions, and say little of who asks: "Give me a list of healthy snacks."
    """
    return np.maximum(scores - _REQUEST_LOSS * requests, np.float32(0)).astype(np.float32)


def yield_to_newer(scores: Floats, vectors: Floats, rows: Numbers) -> Floats:
    """Return the scores of candidates, lowered for those that a newer one nearly repeats."""
    alike = np.clip((vectors @ vectors.T - _NEARLY) / (1 - _NEARLY), 0, 1)
    newer = rows[None, :] > rows[:, None]
    as_good = scores[None, :] >= _AS_GOOD * scores[:, None]
    repeated = np.where(newer & as_good, alike, 0).max(axis=1, initial=0)
    lowered: Floats = (scores * (1 - _LOSS * repeated)).astype(np.float32)
    return lowered


def best_first(scores: Floats, count: int, among: Positions | None = None) -> Positions:
    """Return the positions of the `count` highest scores, best first; of equals the newer first.

    With `among`, ascending positions, only those are looked at.
    """
    if among is not None:
        return among[best_first(scores[among], count)]
    some = np.arange(len(scores))
    if 0 < count < len(scores):  # sorting all of many is most of the work
        some = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    ascending = some[np.argsort(scores[some], kind="stable")]
    return ascending[::-1][:count]
