"""Erasing an owner from the embedded store, down to the bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from afterword.shared.errors import Unavailable
from afterword.workers.adapters.mem0.sqlite import database
from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.store import found, opener, put, texts


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[[], SqliteStore]]:
    with opener(tmp_path / "memories.sqlite") as open_one_more:
        yield open_one_more


@pytest.fixture
def store(open_store: Callable[[], SqliteStore]) -> SqliteStore:
    return open_store()


OWNERS = [f"owner{number:02d}" for number in range(12)]


def canary(owner: str) -> str:
    return f"canary{owner[-2:]}sings"


def left(folder: Path, mark: str) -> dict[str, int]:
    """Return how often the mark occurs in each file."""
    counts = {path.name: path.read_bytes().count(mark.encode()) for path in folder.iterdir()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.parametrize("seed", range(3))
def test_nothing_of_an_erased_owner_is_left_on_disk(
    tmp_path: Path, store: SqliteStore, seed: int
) -> None:
    chance = random.Random(seed)
    for number in range(250):
        owner = chance.choice(OWNERS)
        words = " ".join(f"{canary(owner)}{chance.randrange(40)}" for _ in range(8))
        memory_id = put(store, owner, words * chance.choice([1, 1, 1, 40]), f"turn-{number}")
        if number % 7 == 0:
            payload = {"user_id": owner, "data": f"changed {canary(owner)}"}
            store.update(memory_id, payload=payload)
    gone, kept = OWNERS[:6], OWNERS[6:]
    assert all(left(tmp_path, canary(owner)) for owner in OWNERS)
    for owner in gone:
        store.erase_owner(owner)
    for owner in gone:
        assert (owner, left(tmp_path, canary(owner)), left(tmp_path, owner)) == (owner, {}, {})
    assert all(texts(store, owner) for owner in kept)


def test_words_and_names_are_in_the_memory_and_in_no_index(
    tmp_path: Path, store: SqliteStore
) -> None:
    put(store, "somebody", "marmalade")
    store.close()
    assert left(tmp_path, "marmalade") == {"memories.sqlite": 1}
    assert left(tmp_path, "somebody") == {"memories.sqlite": 1}


def test_a_deleted_memory_leaves_no_word_behind(tmp_path: Path, store: SqliteStore) -> None:
    store.delete(put(store, "ana", "marmalade on toast"))
    with closing(Database(tmp_path / "memories.sqlite")) as file, file.reading() as sql:
        assert sql.execute("SELECT count(*) FROM tokens").fetchone() == (0,)


def test_an_erased_owner_can_return_as_a_new_one(open_store: Callable[[], SqliteStore]) -> None:
    store, other = open_store(), open_store()
    put(store, "ana", "I prefer Celsius", "turn-1")
    assert found(other, "ana", "Celsius") == ["I prefer Celsius"]
    store.erase_owner("ana")
    assert found(other, "ana", "Celsius") == []
    put(store, "ana", "I prefer Kelvin", "turn-1")
    assert found(other, "ana", "Celsius") == ["I prefer Kelvin"]


def test_an_erase_that_cannot_empty_the_log_fails_and_can_be_repeated(
    tmp_path: Path, open_store: Callable[[], SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.05)
    store = open_store()
    put(store, "ana", "marmalade")
    with closing(Database(tmp_path / "memories.sqlite")) as file, file.reading() as sql:
        sql.execute("SELECT count(*) FROM memories").fetchone()
        with pytest.raises(Unavailable):
            store.erase_owner("ana")
        assert left(tmp_path, "marmalade")
    store.erase_owner("ana")
    assert left(tmp_path, "marmalade") == {}
