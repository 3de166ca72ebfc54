"""How the newer statement of a fact that changed is found by the older one."""

from __future__ import annotations

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite.newer import lift_newer
from afterword.workers.adapters.mem0.sqlite.ranking import LEND_S, Floats, Positions, Scale
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors, Vectors

#: The best, of which five keep their places, and others; each has a direction of its own.
SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, *[0.1] * 30]

#: The memory that may be replaced, one of the best, and the one that may replace it.
OLD, NEW = 1, 20


def held(
    alike: dict[tuple[int, int], float],
    conversations: dict[int, int] | None = None,
    apart_s: int = 0,
) -> OwnerVectors:
    """Return as many memories as there are scores, oldest first, of which some pairs are alike."""
    count = len(SCORES)
    numbers = np.arange(count, dtype=np.int64)
    vectors = np.eye(count, dtype=np.float32)
    for (one, other), cosine in alike.items():
        vectors[other] *= np.sqrt(1 - cosine * cosine)
        vectors[other, one] = cosine
    talks = numbers.copy()
    for place, talk in (conversations or {}).items():
        talks[place] = talk
    return OwnerVectors(
        epoch=0,
        first_row=0,
        last_row=count,
        rows=numbers + 1,
        vectors=Vectors((Scale().reduced(vectors),)),
        lengths=np.ones(count, np.float32),
        folded=numbers,
        conversations=talks,
        times=numbers * apart_s,
        counts=np.ones(count, np.int64),
    )


def nothing_in_common(found: Positions, among: Positions) -> Floats:
    return np.zeros((len(found), len(among)), np.float32)


def lifted(cached: OwnerVectors, scores: list[float] = SCORES) -> list[float]:
    given = np.array(scores[: len(cached.rows)], np.float32)
    return [float(one) for one in lift_newer(given, cached, nothing_in_common)]


def test_the_newer_memory_that_stands_out_beside_a_found_one_comes_right_after_the_first_five() -> (
    None
):
    scores = lifted(held({(OLD, NEW): 0.6}))
    assert 0.49 < scores[NEW] < 0.5
    assert scores[:NEW] + scores[NEW + 1 :] == pytest.approx(SCORES[:NEW] + SCORES[NEW + 1 :])


def test_what_stands_out_less_gains_less_and_what_does_not_stand_out_nothing() -> None:
    old = 8  # its score is small, so what it lends does not reach the first five
    scores = [*SCORES[:5], *[0.2] * 10, *[0.0] * 20]
    far, less, full = (lifted(held({(old, NEW): near}), scores)[NEW] for near in (0.1, 0.16, 0.24))
    assert far == 0.0
    assert full == pytest.approx(0.2, abs=0.06)
    assert 0.0 < less < full


def test_an_older_memory_gains_nothing() -> None:
    scores = [0.1] * 30 + SCORES[:5]
    found = len(scores) - 2
    assert lifted(held({(3, found): 0.6}), scores) == pytest.approx(scores)


def test_what_is_nearer_to_another_older_memory_does_not_replace_this_one() -> None:
    scores = lifted(held({(OLD, NEW): 0.5, (NEW - 1, NEW): 0.6}))
    assert scores == pytest.approx(SCORES)


def test_neighbours_in_a_conversation_replace_nothing() -> None:
    together = {OLD: 7, NEW: 7}
    assert lifted(held({(OLD, NEW): 0.6}, together)) == pytest.approx(SCORES)
    later = held({(OLD, NEW): 0.6}, together, apart_s=LEND_S // (NEW - OLD) + 1)
    assert lifted(later)[NEW] > 0.49


def test_a_neighbour_that_is_nearer_does_not_hide_what_replaces_a_memory() -> None:
    near = held({(OLD, NEW): 0.6, (OLD, OLD + 1): 0.8}, {OLD: 7, OLD + 1: 7})
    assert lifted(near)[NEW] > 0.2


def test_rare_words_in_common_bring_two_memories_nearer() -> None:
    def words(found: Positions, among: Positions) -> Floats:
        old, new = found[:, None] == OLD, among == NEW
        return np.where(old & new, np.float32(0.7), np.float32(0))

    scores = lift_newer(np.array(SCORES, np.float32), held({(OLD, NEW): 0.05}), words)
    assert scores[NEW] > 0.49


def test_a_pair_that_stands_out_far_is_found_by_what_both_have_in_common_with_the_question() -> (
    None
):
    old, scores = 12, [*SCORES[:5], *[0.05] * 30]
    scores[old] = 0.2
    together = [*scores[:NEW], 0.2, *scores[NEW + 1 :]]
    near = held({(old, NEW): 0.7})
    assert lifted(near, scores)[NEW] == pytest.approx(0.2)
    assert lifted(near, together)[NEW] == pytest.approx(0.35)


def test_no_more_than_three_gain() -> None:
    scores = [*SCORES[:5], *[0.0] * 30]
    pairs = {(old, NEW + old): 0.6 for old in range(5)}
    gained = [one > 0 for one in lifted(held(pairs), scores)[NEW : NEW + 5]]
    assert gained == [True, True, True, False, False]


def test_no_memories_and_a_few_stay_as_they_are() -> None:
    few = held({(0, 1): 0.9})
    for count in (0, 1, 5):
        scores = np.array(SCORES[:count], np.float32)
        assert lift_newer(scores, few, nothing_in_common).tolist() == scores.tolist()
