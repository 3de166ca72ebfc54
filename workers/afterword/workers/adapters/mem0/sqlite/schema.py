"""The tables of the embedded memory store, and the version of a file."""

from __future__ import annotations

import sqlite3

from afterword.shared.errors import Misconfigured

#: Grows with every change of the tables. Files of another version are refused (promise I13).
VERSION = 1

# SQLite overwrites deleted data, but not the copies that an index leaves in the unused space of
# its pages when it moves entries (measured). So no index holds a word, a text or a user's name,
# only digests; those of words and texts are salted, and the salt is erased with the owner.
_TABLES = (
    """
    CREATE TABLE owners (
        n INTEGER PRIMARY KEY AUTOINCREMENT,
        digest BLOB NOT NULL UNIQUE,
        salt BLOB NOT NULL,
        epoch INTEGER NOT NULL DEFAULT 0  -- grows when a memory is changed or deleted
    )
    """,
    """
    CREATE TABLE memories (
        n INTEGER PRIMARY KEY AUTOINCREMENT,  -- grows in the order of commits: there is one writer
        id TEXT NOT NULL UNIQUE,
        owner INTEGER NOT NULL,
        payload TEXT NOT NULL,                -- JSON, as mem0 passes it
        turn_id TEXT GENERATED ALWAYS AS (json_extract(payload, '$.turn_id')) VIRTUAL,
        digest INTEGER NOT NULL,              -- of the text
        vector BLOB NOT NULL,                 -- float16, normalised
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


def create_or_check(sql: sqlite3.Connection, embedder: str, dims: int) -> None:
    """Create the tables in an empty file, else check the file; needs a write transaction.

    Raises `Misconfigured` for a file of another version or with vectors of another embedder.
    """
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _create(sql, embedder, dims)
    elif version != VERSION:
        raise _refuse(f"its memory file has version {version}, this release supports {VERSION}")
    elif sql.execute("SELECT embedder, dims FROM about").fetchone() != (embedder, dims):
        raise _refuse("its memories were embedded by another model")


def _create(sql: sqlite3.Connection, embedder: str, dims: int) -> None:
    for table in _TABLES:
        sql.execute(table)
    sql.execute("INSERT INTO about VALUES (?, ?)", (embedder, dims))
    sql.execute(f"PRAGMA user_version = {VERSION}")


def _refuse(reason: str) -> Misconfigured:
    remedy = "install the release that wrote it, or set another directory"
    return Misconfigured("AFTERWORD_DATA_DIR", f"{reason}: {remedy}")
