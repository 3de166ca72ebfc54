"""How the newer statement of a fact that changed is found by the older one."""

from __future__ import annotations

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite.newer import lift_newer
from afterword.workers.adapters.mem0.sqlite.ranking import LEND_S, Floats, Positions, Scale
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors, Vectors


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def held(*angles: float, conversations: tuple[int, ...] = (), apart_s: int = 0) -> OwnerVectors:
    """Return memories whose vectors point into these directions, in degrees, oldest first."""
    count = len(angles)
    radians = np.radians(floats(*angles))
    numbers = np.arange(count, dtype=np.int64)
    talks = np.array(conversations or range(count), np.int64)
    vectors = Scale().reduced(np.stack([np.cos(radians), np.sin(radians)], axis=1))
    return OwnerVectors(
        epoch=0,
        first_row=0,
        last_row=count,
        rows=numbers + 1,
        vectors=Vectors((vectors,)),
        lengths=np.ones(count, np.float32),
        folded=numbers,
        conversations=talks,
        times=numbers * apart_s,
        counts=np.ones(count, np.int64),
    )


def nothing_in_common(found: Positions, among: Positions) -> list[Floats]:
    return [np.zeros(len(among), np.float32)] * len(found)


def lifted(scores: Floats, cached: OwnerVectors) -> list[float]:
    return [float(one) for one in lift_newer(scores, cached, nothing_in_common)]


def test_the_newer_memory_that_is_nearest_to_a_found_one_gains() -> None:
    scores = lifted(floats(0.5, 0.0, 0.0), held(0, 90, 20))
    assert scores == pytest.approx([0.5, 0.0, 0.475])


def test_a_memory_that_is_farther_away_gains_less_and_one_of_another_subject_nothing() -> None:
    _, near = lifted(floats(0.5, 0.0), held(0, 48))
    assert 0.0 < near < 0.3
    assert lifted(floats(0.5, 0.0), held(0, 60)) == [0.5, 0.0]


def test_an_older_memory_gains_nothing() -> None:
    assert lifted(floats(0.0, 0.5), held(0, 10)) == [0.0, 0.5]


def test_nothing_loses_by_it() -> None:
    scores = lifted(floats(0.3, 0.5), held(0, 10))
    assert scores == pytest.approx([0.3, 0.5])


def test_what_is_nearer_to_another_older_memory_does_not_replace_this_one() -> None:
    scores = lifted(floats(0.5, 0.0, 0.0), held(0, 40, 30))
    assert scores == pytest.approx([0.5, 0.0, 0.0])


def test_neighbours_in_a_conversation_replace_nothing() -> None:
    assert lifted(floats(0.5, 0.0), held(0, 10, conversations=(1, 1))) == [0.5, 0.0]
    later = held(0, 10, conversations=(1, 1), apart_s=LEND_S + 1)
    assert lifted(floats(0.5, 0.0), later) == pytest.approx([0.5, 0.475])


def test_a_rare_word_in_common_brings_two_memories_nearer() -> None:
    def words(found: Positions, among: Positions) -> list[Floats]:
        return [
            floats(*(0.4 if (position, place) == (0, 1) else 0.0 for place in among))
            for position in found
        ]

    cached = held(0, 60)
    bare, worth = lifted(floats(0.5, 0.0), cached), lift_newer(floats(0.5, 0.0), cached, words)
    assert bare[1] == 0.0
    assert worth[1] > 0.4


def test_no_memories_and_one_alone_stay_as_they_are() -> None:
    assert lifted(floats(0.5), held(0)) == [0.5]
    empty = held()
    assert lift_newer(floats(), empty, nothing_in_common).tolist() == []
