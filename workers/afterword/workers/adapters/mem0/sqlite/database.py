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

#: How long a transaction waits for those of others before it gives up.
BUSY_S = 10.0

_PRAGMAS = (
    "PRAGMA synchronous = FULL",  # what is committed outlives a power cut
    "PRAGMA secure_delete = ON",  # what is deleted is overwritten
    "PRAGMA temp_store = MEMORY",  # and was never written elsewhere
)


class Database:
    """One SQLite file in WAL mode, to be shared by threads and processes of one host.

    Connections are kept for the next transaction but never across a fork: SQLite's file locks
    belong to a process, and a child that opens a file which its parent had open counts the
    parent's lock as its own. Once the parent closes the file, the child's commits are lost.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._lent = 0
        self._turn = threading.Condition()
        _open_databases.add(self)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one snapshot of the file."""
        with self._connection() as sql, sql:
            sql.execute("BEGIN")
            yield sql

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside the one write transaction there is; an exception undoes it."""
        with self._connection() as sql, sql:
            sql.execute("BEGIN IMMEDIATE")
            yield sql

    def scrub(self) -> None:
        """Move all that is committed into the file and empty the log, where old pages live on.

        Raises `Unavailable` if a long transaction of another connection stands in the way.
        """
        with self._connection() as sql:
            (blocked, _, _) = sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if blocked:
            raise Unavailable("store_busy")

    def close(self) -> None:
        """Close all connections, once their transactions have ended."""
        with self._turn:
            self._close_idle()

    def before_fork(self) -> None:
        """Close all connections and lend none until after the fork."""
        self._turn.acquire()
        self._close_idle()

    def after_fork_in_parent(self) -> None:
        """Lend connections again."""
        self._turn.release()

    def after_fork_in_child(self) -> None:
        """Lend connections, the child's own."""
        self._turn = threading.Condition()

    def _close_idle(self) -> None:
        self._turn.wait_for(lambda: self._lent == 0)
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._turn:
            self._lent += 1
            sql = self._idle.pop() if self._idle else None
        try:
            sql = self._connect() if sql is None else sql
            yield sql
        finally:
            with self._turn:
                self._lent -= 1
                self._idle.extend([] if sql is None else [sql])
                self._turn.notify_all()

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
        raise Misconfigured("AFTERWORD_DATA_DIR", "its file system cannot share a database")
    for pragma in _PRAGMAS:
        sql.execute(pragma)


def _to_wal(sql: sqlite3.Connection) -> str:
    """Choose the journal of a file that others may be opening for the first time too.

    Where one of them is about to write, SQLite refuses at once; to write, it waits for its turn.
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
