"""A memory file of an older release: it is upgraded when it is opened, and loses nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite import database, upgrade
from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.owners import ensure_owner
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector
from tests.kit.sqlite_store.store import found, opener, put, texts

#: The tables of version 1, as release 1.0 made them.
VERSION_1 = """
    CREATE TABLE owners (
        n INTEGER PRIMARY KEY AUTOINCREMENT, digest BLOB NOT NULL UNIQUE, salt BLOB NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0
    );
    CREATE TABLE memories (
        n INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner INTEGER NOT NULL,
        payload TEXT NOT NULL,
        turn_id TEXT GENERATED ALWAYS AS (json_extract(payload, '$.turn_id')) VIRTUAL,
        digest INTEGER NOT NULL, vector BLOB NOT NULL, length INTEGER NOT NULL
    );
    CREATE INDEX memories_of_owner ON memories (owner, n);
    CREATE UNIQUE INDEX memories_of_turn ON memories (owner, turn_id, digest)
    WHERE turn_id IS NOT NULL;
    CREATE TABLE postings (
        owner INTEGER NOT NULL, word INTEGER NOT NULL, memory INTEGER NOT NULL,
        PRIMARY KEY (owner, word, memory)
    ) WITHOUT ROWID;
    CREATE TABLE about (embedder TEXT NOT NULL, dims INTEGER NOT NULL);
    PRAGMA user_version = 1;
"""
SAID = ["I prefer Celsius", "my dog is called Rex", "i  prefer celsius", "Ich mag Erdnussbutter"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file of version 1 with the memories of an owner."""
    path = tmp_path / "memories.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.executescript(VERSION_1)
        sql.execute("INSERT INTO about VALUES ('hashing', ?)", (DIMS,))
        ana = ensure_owner(sql, "ana")
        for number, text in enumerate(SAID):
            at = f"2026-05-08T20:{number:02}:00+00:00"
            payload = {"user_id": "ana", "data": text, "turn_id": f"t{number}", "created_at": at}
            halves = np.array(vector(text), np.float32).astype("<f2").tobytes()
            row = (str(number), ana.n, json.dumps(payload), ana.digest(text), halves, 3)
            insert = "INSERT INTO memories (id, owner, payload, digest, vector, length)"
            sql.execute(f"{insert} VALUES (?, ?, ?, ?, ?, ?)", row)
            sql.execute("INSERT INTO postings VALUES (?, 7, ?)", (ana.n, number))
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with opener(path) as open_store:
        yield open_store()


def test_an_older_file_is_read_and_searched_like_a_new_one(store: SqliteStore, path: Path) -> None:
    assert texts(store, "ana") == SAID
    with opener(path.with_name("new.sqlite")) as open_store:
        new = open_store()
        for number, text in enumerate(SAID):
            put(new, "ana", text, f"t{number}")
        for query in ("Celsius", "a dog", "Erdnuss", "what do I like?"):
            scores = [
                [(row.payload["data"], row.score) for row in rows]
                for rows in (
                    one.search(query, vector(query), 9, {"user_id": "ana"}) for one in (store, new)
                )
            ]
            assert scores[0] == scores[1]


def test_an_older_file_is_written_and_erased_like_a_new_one(store: SqliteStore, path: Path) -> None:
    put(store, "ana", SAID[0], "t0")
    put(store, "ana", "my cat is called Tom", "t9")
    assert texts(store, "ana") == [*SAID, "my cat is called Tom"]
    assert found(store, "ana", "cat Tom", most=1) == ["my cat is called Tom"]
    store.erase_owner("ana")
    assert b"Celsius" not in path.read_bytes()


def test_an_upgrade_happens_once(path: Path) -> None:
    with opener(path) as open_store:
        open_store()
        with closing(Database(path)) as database, database.reading() as sql:
            before = list(sql.execute("SELECT * FROM tokens"))
        open_store()
        with closing(Database(path)) as database, database.reading() as sql:
            assert list(sql.execute("SELECT * FROM tokens")) == before != []
            assert sql.execute("PRAGMA user_version").fetchone() == (2,)


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk full")

    with monkeypatch.context() as patch, opener(path) as open_store:
        patch.setattr(upgrade, "index_row", fail)
        with pytest.raises(sqlite3.OperationalError):
            open_store()
    with closing(sqlite3.connect(path)) as sql:
        assert sql.execute("PRAGMA user_version").fetchone() == (1,)
        assert sql.execute("SELECT count(*) FROM postings").fetchone() == (len(SAID),)
    with opener(path) as open_store:
        assert texts(open_store(), "ana") == SAID


def test_a_process_waits_while_another_one_upgrades(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_S", 0.0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    attempts: list[str] = []

    class Waits(sqlite3.Connection):
        """Ends the other process's transaction after an attempt has failed."""

        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                attempts.append(statement)
                if len(attempts) > 1 and other.in_transaction:
                    other.execute("COMMIT")
            return super().execute(statement, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Waits))
    with closing(other), opener(path) as open_store:
        assert texts(open_store(), "ana") == SAID
    assert len(attempts) > 1


def test_a_payload_that_cannot_be_read_does_not_stop_an_upgrade(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        broken = json.dumps({"data": 7, "created_at": [], "conversation_id": {}})
        sql.execute("UPDATE memories SET payload = ? WHERE id = '1'", (broken,))
    with opener(path) as open_store:
        assert found(open_store(), "ana", "Celsius", most=1) == ["i  prefer celsius"]
