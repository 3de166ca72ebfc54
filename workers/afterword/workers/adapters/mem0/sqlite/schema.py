"""The tables of the embedded memory store, and how a file says which it has."""

from __future__ import annotations

import sqlite3

from afterword.shared.errors import Misconfigured

#: Grows with every change of the tables; a file of a newer version is refused (promise I13).
VERSION = 1

# SQLite overwrites what is deleted, but not the copies that an index leaves in the slack of its
# pages when it moves entries about (measured). So no index holds a word, a text or a user's name:
# they hold digests, words under a salt of their owner that is erased with the owner.
_TABLES = (
    """
    CREATE TABLE owners (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        salt BLOB NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0  -- grows when a memory is changed or goes
    )
    """,
    """
    CREATE TABLE memories (
        n INTEGER PRIMARY KEY AUTOINCREMENT,  -- grows in the order of commits: one writer at once
        id TEXT NOT NULL UNIQUE,
        owner INTEGER NOT NULL,
        payload TEXT NOT NULL,                -- JSON, what mem0 gave
        turn_id TEXT GENERATED ALWAYS AS (json_extract(payload, '$.turn_id')) VIRTUAL,
        digest INTEGER NOT NULL,              -- of the text
        vector BLOB NOT NULL,                 -- float16, of length 1
        length INTEGER NOT NULL               -- in words
    )
    """,
    "CREATE INDEX memories_of_owner ON memories (owner, n)",
    """
    CREATE UNIQUE INDEX memories_of_turn ON memories (owner, turn_id, digest)
    WHERE turn_id IS NOT NULL
    """,
    """
    CREATE TABLE postings (
        owner INTEGER NOT NULL,
        word INTEGER NOT NULL,                -- digest of the stem
        memory INTEGER NOT NULL,
        PRIMARY KEY (owner, word, memory)
    ) WITHOUT ROWID
    """,
    "CREATE TABLE about (embedder TEXT NOT NULL, dims INTEGER NOT NULL)",
)


def prepare(sql: sqlite3.Connection, embedder: str, dims: int) -> None:
    """Make the tables of an empty file, inside a write transaction.

    Raises `Misconfigured` for a file of a newer version or with vectors of another embedder.
    """
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _create(sql, embedder, dims)
    elif version != VERSION:
        raise _refuse(f"its memories are of version {version}, this worker knows {VERSION}")
    elif sql.execute("SELECT embedder, dims FROM about").fetchone() != (embedder, dims):
        raise _refuse("its memories were embedded by another model")


def _create(sql: sqlite3.Connection, embedder: str, dims: int) -> None:
    for table in _TABLES:
        sql.execute(table)
    sql.execute("INSERT INTO about VALUES (?, ?)", (embedder, dims))
    sql.execute(f"PRAGMA user_version = {VERSION}")


def _refuse(reason: str) -> Misconfigured:
    return Misconfigured("AFTERWORD_DATA_DIR", reason)
