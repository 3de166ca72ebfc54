"""Who asks for all that is known is given the newest memories."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite.newest import newest_points
from afterword.workers.adapters.mem0.sqlite.ranking import Scale
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
ANA = {"user_id": "ana"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(
        tmp_path / "x", embedder="hashing", dims=DIMS, scale=Scale(), reading_s=math.inf,
        asks_about_user=lambda query: query == "remember zebras",
    )  # fmt: skip
    yield store
    store.close()


def say(store: SqliteStore, *texts: str) -> None:
    for number, text in enumerate(texts):
        at = NOON + timedelta(days=number)
        payload = ANA | {"data": text, "created_at": at.isoformat()}
        store.insert([vector(text)], [payload], [f"{number} {text}"])


def found(store: SqliteStore, query: str, count: int) -> list[str]:
    alike = "unlike all" if "zebras" in query else query
    rows = store.search(query, vector(alike), count, ANA)
    return [row.payload["data"] for row in rows]


def test_the_newer_a_memory_is_the_more_it_gains() -> None:
    assert (np.diff(newest_points(np.arange(30))) > 0).all()
    assert newest_points(np.array([5, 9, 7])).argsort().tolist() == [0, 2, 1]


def test_of_one_time_the_last_gains_most() -> None:
    assert (np.diff(newest_points(np.zeros(5, np.int64))) > 0).all()


def test_old_memories_and_none_gain_nothing() -> None:
    points = newest_points(np.arange(100))
    assert (points[:50] == 0).all()
    assert points[-1] > points[-20] > 0
    assert newest_points(np.array([], np.int64)).tolist() == []


def test_a_search_for_all_that_is_known_finds_the_newest(store: SqliteStore) -> None:
    say(store, *(f"fact{number} thing{number}" for number in range(60)))
    assert found(store, "remember zebras", 3) == [
        "fact59 thing59",
        "fact58 thing58",
        "fact57 thing57",
    ]
    assert found(store, "fact3 thing3", 1) == ["fact3 thing3"]


def test_what_was_said_again_takes_one_place(store: SqliteStore) -> None:
    say(store, "red shoes", "blue hat", "Good morning", "good morning", "good  morning")
    assert found(store, "remember zebras", 3) == ["good  morning", "blue hat", "red shoes"]


def test_the_words_of_the_question_count_for_nothing(store: SqliteStore) -> None:
    facts = [f"fact{number} thing{number}" for number in range(60)]
    say(store, *facts, "remember zebras anyway", "blue hat")
    assert found(store, "remember zebras", 2) == ["blue hat", "remember zebras anyway"]
