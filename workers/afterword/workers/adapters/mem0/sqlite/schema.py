"""The tables of the embedded memory store, and the version of a file."""

from __future__ import annotations

import sqlite3

from afterword.shared.errors import Misconfigured

#: Grows with every change of the tables. Files of an older version are upgraded when they are
#: opened, those of a newer one are refused (promise I13).
VERSION = 2

# SQLite overwrites deleted data, but not the copies that an index leaves in the unused space of
# its pages when it moves entries (measured). So no index holds a word, a text or a user's name,
# only digests; those of words and texts are salted, and the salt is erased with the owner.
_TOKENS = """
    CREATE TABLE tokens (
        owner INTEGER NOT NULL,
        token INTEGER NOT NULL,               -- digest of a stem, a part of a word or a code
        memory INTEGER NOT NULL,
        PRIMARY KEY (owner, token, memory)
    ) WITHOUT ROWID
"""
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
        length INTEGER NOT NULL,              -- in words
        folded INTEGER NOT NULL DEFAULT 0,    -- digest of the text without case and spacing
        conversation INTEGER NOT NULL DEFAULT 0,  -- digest of its id
        said_at INTEGER NOT NULL DEFAULT 0    -- in seconds since 1970
    )
    """,
    "CREATE INDEX memories_of_owner ON memories (owner, n)",
    """
    CREATE UNIQUE INDEX memories_of_turn ON memories (owner, turn_id, digest)
    WHERE turn_id IS NOT NULL
    """,
    _TOKENS,
    "CREATE TABLE about (embedder TEXT NOT NULL, dims INTEGER NOT NULL)",
)


def create_or_check(sql: sqlite3.Connection, embedder: str, dims: int) -> int:
    """Create the tables in an empty file, else check the file; needs a write transaction.

    Returns the version that the file had: one older than `VERSION` has to be upgraded. Raises
    `Misconfigured` for a file of a newer version or with vectors of another embedder.
    """
    (version,) = sql.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _create(sql, embedder, dims)
        return VERSION
    if version > VERSION:
        raise _refuse(f"its memory file has version {version}, this release supports {VERSION}")
    if sql.execute("SELECT embedder, dims FROM about").fetchone() != (embedder, dims):
        raise _refuse("its memories were embedded by another model")
    return int(version)


def replace_tables_of_version_1(sql: sqlite3.Connection) -> None:
    """Add what version 2 added: the columns, still empty, and an empty index of tokens."""
    for column in ("folded", "conversation", "said_at"):
        sql.execute(f"ALTER TABLE memories ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")
    sql.execute("DROP TABLE postings")
    sql.execute(_TOKENS)
    sql.execute(f"PRAGMA user_version = {VERSION}")


def _create(sql: sqlite3.Connection, embedder: str, dims: int) -> None:
    for table in _TABLES:
        sql.execute(table)
    sql.execute("INSERT INTO about VALUES (?, ?)", (embedder, dims))
    sql.execute(f"PRAGMA user_version = {VERSION}")


def _refuse(reason: str) -> Misconfigured:
    remedy = "install the release that wrote it, or set another directory"
    return Misconfigured("AFTERWORD_DATA_DIR", f"{reason}: {remedy}")
