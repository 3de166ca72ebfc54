"""SQLite connections to one file, for several threads and processes."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from afterword.shared.errors import Misconfigured, Unavailable

#: How long a transaction waits for others before it fails with `SQLITE_BUSY`.
BUSY_S = 10.0

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # a commit survives a power cut
    "PRAGMA secure_delete = ON",  # deleted data is overwritten
    "PRAGMA temp_store = MEMORY",  # and never written to temporary files
)


class Database:
    """One SQLite file in WAL mode, shared by threads and processes of one host.

    Connections are reused for the next transaction but never across a fork. SQLite's file locks
    belong to a process, but a forked child would count its parent's lock as its own, and lose
    its commits once the parent closes the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._condition = threading.Condition()
        _open_databases.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside a read transaction: one snapshot of the file."""
        with self._connection() as sql, sql:
            sql.execute("BEGIN")
            yield sql

    @contextmanager
    def writing(self, patience_s: float = 0.0) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside the only write transaction; an exception rolls it back.

        It waits for others for `BUSY_S`, or for `patience_s` if that is longer.
        """
        with self._connection() as sql, sql:
            _begin_writing(sql, time.monotonic() + patience_s)
            yield sql

    def truncate_wal(self) -> None:
        """Checkpoint and truncate the write-ahead log, which still holds old pages.

        Raises `Unavailable` if a long transaction of another connection prevents it.
        """
        with self._connection() as sql:
            (blocked, _, _) = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if blocked:
            raise Unavailable("store_busy")

    def close(self) -> None:
        """Close all connections, after their transactions have ended."""
        with self._condition:
            self._close_idle()

    def before_fork(self) -> None:
        """Close all connections and lend none until after the fork."""
        self._condition.acquire()
        self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Lend connections again."""
        self._condition.release()

    def after_fork_in_child(self) -> None:
        """Lend new connections, the child's own."""
        self._condition = threading.Condition()

    def _close_idle(self) -> None:
        self._condition.wait_for(lambda: self._lent == 0)
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._condition:
            self._lent += 1
            sql = self._idle.pop() if self._idle else None
        try:
            sql = self._connect() if sql is None else sql
            yield sql
        finally:
            with self._condition:
                self._lent -= 1
                self._idle.extend([] if sql is None else [sql])
                self._condition.notify_all()

    def _connect(self) -> sqlite3.Connection:
        sql = sqlite3.connect(
            self._path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        try:
            _prepare(sql)
        except BaseException:
            sql.close()
            raise
        return sql


def _prepare(sql: sqlite3.Connection) -> None:
    if _to_wal(sql) != "wal":
        raise Misconfigured(
            "AFTERWORD_DATA_DIR", "its file system does not support SQLite's WAL mode"
        )
    for pragma in _PRAGMAS:
        sql.execute(pragma)


def _begin_writing(sql: sqlite3.Connection, give_up: float) -> None:
    while True:
        try:
            sql.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise


def _to_wal(sql: sqlite3.Connection) -> str:
    """Set WAL mode on a file that others may be opening for the first time too.

    If one of them is about to write, SQLite refuses this at once instead of waiting. A write
    transaction does wait, so one is begun before the next attempt.
    """
    give_up = time.monotonic() + BUSY_S
    while True:
        try:
            (mode,) = sql.execute("PRAGMA journal_mode = WAL").fetchone()
            return str(mode)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        sql.execute("BEGIN IMMEDIATE")
        sql.execute("ROLLBACK")


_open_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_forking: list[Database] = []


def _before_fork() -> None:
    _forking.extend(_open_databases)
    for database in _forking:
        database.before_fork()


def _after_fork_in_parent() -> None:
    while _forking:
        _forking.pop().after_fork_in_parent()


def _after_fork_in_child() -> None:
    while _forking:
        _forking.pop().after_fork_in_child()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)
