"""The SQL on memories: one row each, and one posting for each of its distinct tokens."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from afterword.workers.adapters.mem0.answers import readable_payload
from afterword.workers.adapters.mem0.sqlite.filters import Filters
from afterword.workers.adapters.mem0.sqlite.owners import Owner, bump_epoch, ensure_owner
from afterword.workers.adapters.mem0.sqlite.ranking import Positions
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors

_OF_OWNER = "SELECT n, id, payload FROM memories WHERE owner = ? ORDER BY n"
_OF_TURN = """
    SELECT n, id, payload FROM memories INDEXED BY memories_of_turn
    WHERE owner = ? AND turn_id = ? ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A memory as mem0 reads it from a vector store."""

    id: str
    payload: Mapping[str, Any]
    score: float | None = None

    @classmethod
    def read(cls, memory_id: str, payload: str, score: float | None = None) -> Row:
        """Read the row of a memory, whatever was written into the file."""
        try:
            found = json.loads(payload)
        except (ValueError, RecursionError):
            found = None
        return cls(memory_id, readable_payload(found), score)


@dataclass(frozen=True, slots=True)
class Entry:
    """A memory prepared before the write transaction, which is held for less time that way."""

    owner: str
    text: str
    payload: str
    vector: bytes
    tokens: tuple[str, ...]


def insert_row(sql: sqlite3.Connection, memory_id: str, entry: Entry) -> None:
    """Write a memory, unless its turn has one with the same text already."""
    owner = ensure_owner(sql, entry.owner)
    insert = """
        INSERT INTO memories (id, owner, payload, digest, vector, length)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (owner, turn_id, digest) WHERE turn_id IS NOT NULL DO NOTHING
    """
    digest, length = owner.digest(entry.text), len(entry.tokens)
    written = sql.execute(insert, (memory_id, owner.n, entry.payload, digest, entry.vector, length))
    if written.rowcount:
        words = {owner.digest(token) for token in entry.tokens}
        postings = [(owner.n, word, written.lastrowid) for word in words]
        sql.executemany("INSERT INTO postings VALUES (?, ?, ?)", postings)


def delete_row(sql: sqlite3.Connection, memory_id: str) -> None:
    """Delete a memory, if it exists, and invalidate the caches of all processes."""
    row = sql.execute("SELECT n, owner FROM memories WHERE id = ?", (memory_id,)).fetchone()
    if row is not None:
        sql.execute("DELETE FROM postings WHERE memory = ? AND owner = ?", row)
        sql.execute("DELETE FROM memories WHERE n = ?", row[:1])
        bump_epoch(sql, row[1])


def get_row(sql: sqlite3.Connection, memory_id: str) -> tuple[Row, bytes] | None:
    """Return one memory and its vector, None if it does not exist."""
    select = "SELECT id, payload, vector FROM memories WHERE id = ?"
    row = sql.execute(select, (memory_id,)).fetchone()
    return (Row.read(*row[:2]), row[2]) if row else None


def list_rows(
    sql: sqlite3.Connection, owner: Owner, filters: Filters, limit: int | None = None
) -> list[Row]:
    """Return the selected memories, oldest first."""
    return [row for _, row in islice(_selected(sql, owner, filters), limit)]


def find_positions(
    sql: sqlite3.Connection, owner: Owner, filters: Filters, cached: OwnerVectors
) -> Positions:
    """Return the positions of the selected memories in the owner's cached arrays."""
    if filters.select_all:
        return np.arange(len(cached.rows))
    rows = (n for n, _ in _selected(sql, owner, filters))
    return cached.positions(np.fromiter(rows, np.int64))


def find_matches(
    sql: sqlite3.Connection, owner: Owner, tokens: Sequence[str], cached: OwnerVectors
) -> Iterator[Positions]:
    """Yield, for each token that occurs, the positions of the memories with that token."""
    # One string of numbers: fetching a row for each costs ten times as much in Python.
    select = "SELECT group_concat(memory) FROM postings WHERE owner = ? AND word = ?"
    for token in tokens:
        (numbers,) = sql.execute(select, (owner.n, owner.digest(token))).fetchone()
        if numbers:
            yield cached.positions(np.fromstring(numbers, np.int64, sep=","))


def read_rows(sql: sqlite3.Connection, scores: dict[int, float]) -> list[Row]:
    """Return the memories of these row numbers in the same order, each with its score.

    Leaves out rows that are newer than this snapshot: another thread's search may have added them
    to the cache.
    """
    select = "SELECT n, id, payload FROM memories WHERE n IN (SELECT value FROM json_each(?))"
    found = {n: rest for n, *rest in sql.execute(select, (json.dumps(list(scores)),))}
    return [Row.read(found[n][0], found[n][1], score) for n, score in scores.items() if n in found]


def _selected(sql: sqlite3.Connection, owner: Owner, filters: Filters) -> Iterator[tuple[int, Row]]:
    if filters.turn_id is None:
        found = sql.execute(_OF_OWNER, (owner.n,))
    else:
        found = sql.execute(_OF_TURN, (owner.n, filters.turn_id))
    for n, memory_id, payload in found:
        row = Row.read(memory_id, payload)
        if filters.match(row.payload):
            yield n, row
