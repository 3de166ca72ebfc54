"""How a search reads the vectors of an owner: newest first, for as long as there is time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite import vector_cache
from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Scale
from afterword.workers.adapters.mem0.sqlite.rows import TIMES_SAID
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors, VectorCache, Vectors
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector
from tests.kit.sqlite_store.store import found, open_store, put


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with closing(open_store(tmp_path / "memories.sqlite")) as opened:
        yield opened


@pytest.fixture
def read_slices(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give a function that lets each search read so many slices of two rows, and no more."""
    monkeypatch.setattr(vector_cache, "SLICE", 2)

    def read(slices: float) -> None:
        steps = count()
        # The clock is asked once at first, and once after each slice that is not the last one.
        cache = VectorCache(DIMS, Scale(), reading_s=slices, clock=lambda: float(next(steps)))
        monkeypatch.setattr(store, "_cache", cache)

    return read


def everything(store: SqliteStore) -> list[str]:
    return sorted(found(store, "ana", "tea"))


def test_a_search_reads_the_newest_memories_and_the_next_ones_the_others(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    texts = [f"tea {number}" for number in range(7)]
    for text in texts:
        put(store, "ana", text)
    read_slices(1)
    assert everything(store) == texts[5:]
    assert everything(store) == texts[5:], "the clock had moved on when the newer ones were read"
    read_slices(2)
    assert everything(store) == texts[3:]
    assert everything(store) == texts[1:]
    assert everything(store) == texts
    assert everything(store) == texts


def test_a_search_that_had_less_time_leaves_what_another_one_has_read_meanwhile(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        put(store, "ana", f"tea {number}")
    monkeypatch.setattr(vector_cache, "SLICE", 2)
    steps: Iterator[Callable[[], object]] = iter([lambda: 0, lambda: everything(store)])

    def clock() -> float:
        step = next(steps, None)
        return 0.0 if step is None or not step() else 2.0

    cache = VectorCache(DIMS, Scale(), reading_s=1.0, clock=clock)
    monkeypatch.setattr(store, "_cache", cache)
    assert everything(store) == ["tea 5", "tea 6"], "its time was over when the other one was done"
    assert [entry.first_row for entry in cache._entries.values()] == [0]


def test_with_enough_time_all_are_read_at_once(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    for number in range(7):
        put(store, "ana", f"tea {number}")
    read_slices(100)
    assert len(everything(store)) == 7


def test_memories_stored_between_two_searches_leave_no_gap(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    texts = [f"tea {number:02}" for number in range(12)]
    for text in texts[:3]:
        put(store, "ana", text)
    read_slices(1.5)
    assert everything(store) == texts[:3], "two slices, of which the last one asks no clock"
    for text in texts[3:]:
        put(store, "ana", text)
    assert everything(store) == texts[8:]
    for _ in range(4):
        everything(store)
    assert everything(store) == texts


def test_what_was_said_again_counts_once_however_it_is_read(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    for text in ("tea", "milk", "Tea", "TEA", "milk", "juice", "tea"):
        put(store, "ana", text)

    def said() -> dict[str, int]:
        rows = store.search("tea", vector("tea"), 60, {"user_id": "ana"})
        return {row.payload["data"]: row.payload.get(TIMES_SAID, 1) for row in rows}

    read_slices(1)
    assert said() == {"juice": 1, "tea": 1}
    read_slices(2)
    assert said() == {"juice": 1, "tea": 2, "milk": 1}
    for _ in range(3):
        said()
    assert said() == {"juice": 1, "tea": 4, "milk": 2}


def test_a_deleted_memory_is_dropped_and_the_others_stay(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    ids = [put(store, "ana", f"tea {number}") for number in range(8)]
    read_slices(2)
    for _ in range(4):
        everything(store)
    assert len(everything(store)) == 8
    store.delete(ids[7])
    store.delete(ids[2])
    left = [f"tea {number}" for number in (0, 1, 3, 4, 5, 6)]
    assert everything(store) == left, "read again, two slices would hold four of them"
    put(store, "ana", "tea 8")
    assert everything(store) == [*left, "tea 8"]


def test_an_edited_memory_is_read_again_and_no_other(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    ids = [put(store, "ana", f"tea {number}") for number in range(6)]
    read_slices(2)
    everything(store)
    assert len(everything(store)) == 6
    store.update(ids[1], vector("milk tea"), {"data": "milk tea", "user_id": "ana"})
    assert everything(store) == ["milk tea", "tea 0", "tea 2", "tea 3", "tea 4", "tea 5"]


def test_a_deletion_among_those_read_so_far_leaves_the_others_to_be_read(
    store: SqliteStore, read_slices: Callable[[float], None]
) -> None:
    ids = [put(store, "ana", f"tea {number}") for number in range(7)]
    read_slices(2)
    assert everything(store) == ["tea 3", "tea 4", "tea 5", "tea 6"]
    store.delete(ids[3])
    for _ in range(3):
        everything(store)
    assert everything(store) == [f"tea {number}" for number in (0, 1, 2, 4, 5, 6)]


@pytest.mark.parametrize("deleted", [0, 1, 2])
def test_what_was_said_several_times_is_found_until_the_last_one_is_deleted(
    store: SqliteStore, deleted: int
) -> None:
    ids = [put(store, "ana", text) for text in ("tea", "Tea", "TEA")]

    def said() -> list[tuple[str, int]]:
        rows = store.search("tea", vector("tea"), 60, {"user_id": "ana"})
        return [(row.payload["data"], row.payload.get(TIMES_SAID, 1)) for row in rows]

    assert said() == [("TEA", 3)]
    store.delete(ids[deleted])
    assert said() == [("Tea" if deleted == 2 else "TEA", 2)]


def numbered(*numbers: int) -> Floats:
    return np.array([[number, 1] for number in numbers], np.float32).reshape(-1, 2)


def values(vectors: Vectors) -> list[float]:
    return [float(value) for value in vectors.products(np.array([1, 0], np.float32))]


def test_vectors_in_parts_are_as_good_as_in_one() -> None:
    parts = Vectors((numbered(0, 1, 2), numbered(3), numbered(4, 5)))
    assert len(parts) == 6
    assert values(parts) == [0, 1, 2, 3, 4, 5]
    assert parts.at(np.array([5, 0, 3, 3]))[:, 0].tolist() == [5, 0, 3, 3]
    marks = np.array([True, False, True, False, True, True])
    assert values(parts.kept(marks)) == [0, 2, 4, 5]


def test_few_vectors_are_joined_and_many_are_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_cache, "PART", 3)
    many = Vectors((numbered(0, 1, 2),))
    joined = many.followed_by(Vectors((numbered(3),))).followed_by(Vectors((numbered(4, 5),)))
    assert values(joined) == [0, 1, 2, 3, 4, 5]
    assert joined.parts[0] is many.parts[0]
    assert [len(part) for part in joined.parts] == [3, 3]


def test_an_owner_without_memories_has_no_vectors(store: SqliteStore) -> None:
    gone = put(store, "ana", "tea")
    store.delete(gone)
    assert everything(store) == []
    put(store, "ana", "tea")
    assert everything(store) == ["tea"]
    entry = next(iter(store._cache._entries.values()))
    assert isinstance(entry, OwnerVectors)
    assert entry.first_row == 0
