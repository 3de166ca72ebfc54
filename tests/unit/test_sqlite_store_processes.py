"""The embedded store in several processes, and across a fork."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.servers.fork_server import TalkingProcess, shared_fork_server
from tests.kit.sqlite_store.store import found, opener, texts
from tests.kit.waiting import wait_until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "memories.sqlite"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[[], SqliteStore]]:
    with opener(path) as open_one_more:
        yield open_one_more


EACH = 25
WRITERS = ("ana", "ana", "ben")


def start(*arguments: str) -> TalkingProcess:
    return shared_fork_server().talk([sys.executable, "-m", *arguments])


def writer(path: Path, owner: str) -> TalkingProcess:
    return start("tests.kit.sqlite_store.store", str(path), owner, str(EACH))


@pytest.mark.slow
def test_processes_may_make_and_fill_one_file_at_once(
    path: Path, open_store: Callable[[], SqliteStore]
) -> None:
    processes = [writer(path, owner) for owner in WRITERS]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    reader = open_store()
    assert found(reader, "ana", "memory") == []
    for process in processes:
        process.say("go")
    for process in processes:
        assert process.rest(timeout=50) == (0, "")
    for owner in ("ana", "ben"):
        most = EACH * WRITERS.count(owner)
        assert len(texts(reader, owner)) == most
        once = sorted(set(texts(reader, owner)))  # two writers say the same
        assert sorted(found(reader, owner, "memory", most + 1)) == once


def test_a_file_that_another_process_is_creating_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    class Waits(sqlite3.Connection):
        """Pauses the other process where the test waits for it."""

        def execute(self, statement: str, *parameters: Any) -> sqlite3.Cursor:
            if statement == "BEGIN IMMEDIATE":
                other.execute("COMMIT")
            return super().execute(statement, *parameters)

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Waits))

    with Database(path).reading() as sql:
        assert sql.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_whole_memories_only(
    path: Path, open_store: Callable[[], SqliteStore]
) -> None:
    process = writer(path, "ana")
    assert process.stdout.readline() == "ready\n"
    reader = open_store()
    process.say("go")
    wait_until(lambda: texts(reader, "ana"), "the writer wrote a memory", timeout=20)
    process.process.kill()
    process.rest(timeout=20)
    there = texts(reader, "ana")
    assert there == [f"memory {number} of ana" for number in range(len(there))]
    assert sorted(found(reader, "ana", "memory of ana")) == sorted(there)


@pytest.mark.slow
def test_no_commit_is_lost_by_a_fork(path: Path) -> None:
    process = start("tests.kit.sqlite_store.fork", str(path))
    assert process.rest(timeout=50) == (0, "3 3 0\n")
