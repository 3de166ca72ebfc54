"""The statements on memories: one row each, with the postings of its words."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from afterword.workers.adapters.mem0.sqlite.filters import Asked
from afterword.workers.adapters.mem0.sqlite.owners import Owner, ensure_owner, touch_owner
from afterword.workers.adapters.mem0.sqlite.ranking import Places
from afterword.workers.adapters.mem0.sqlite.vector_cache import Scope

_OF_OWNER = "SELECT n, id, payload FROM memories WHERE owner = ? ORDER BY n"
_OF_TURN = """
    SELECT n, id, payload FROM memories INDEXED BY memories_of_turn
    WHERE owner = ? AND turn_id = ? ORDER BY n
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A memory as mem0 reads it."""

    id: str
    payload: dict[str, Any]
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """A memory made ready before the write transaction, so that others wait less."""

    owner: str
    text: str
    payload: str
    vector: bytes
    words: tuple[str, ...]


def insert_row(sql: sqlite3.Connection, memory_id: str, entry: Entry) -> None:
    """Write a memory, unless its turn has one of the same text already."""
    owner = ensure_owner(sql, entry.owner)
    insert = """
        INSERT INTO memories (id, owner, payload, digest, vector, length)
        VALUES (?, ?, ?, ?, ?, ?)
        ON CONFLICT (owner, turn_id, digest) WHERE turn_id IS NOT NULL DO NOTHING
    """
    digest, length = owner.digest(entry.text), len(entry.words)
    written = sql.execute(insert, (memory_id, owner.n, entry.payload, digest, entry.vector, length))
    if written.rowcount:
        sealed = {owner.digest(word) for word in entry.words}
        postings = [(owner.n, word, written.lastrowid) for word in sealed]
        sql.executemany("INSERT INTO postings VALUES (?, ?, ?)", postings)


def delete_row(sql: sqlite3.Connection, memory_id: str) -> None:
    """Delete a memory, if it is there, and let every process know."""
    row = sql.execute("SELECT n, owner FROM memories WHERE id = ?", (memory_id,)).fetchone()
    if row is not None:
        sql.execute("DELETE FROM postings WHERE memory = ? AND owner = ?", row)
        sql.execute("DELETE FROM memories WHERE n = ?", row[:1])
        touch_owner(sql, row[1])


def get_row(sql: sqlite3.Connection, memory_id: str) -> tuple[Row, bytes] | None:
    """Return one memory and its vector."""
    select = "SELECT id, payload, vector FROM memories WHERE id = ?"
    row = sql.execute(select, (memory_id,)).fetchone()
    return (Row(row[0], json.loads(row[1])), row[2]) if row else None


def list_rows(
    sql: sqlite3.Connection, owner: Owner, asked: Asked, most: int | None = None
) -> list[Row]:
    """Return the memories asked for, oldest first."""
    return [row for _, row in islice(_asked_for(sql, owner, asked), most)]


def find_places(sql: sqlite3.Connection, owner: Owner, asked: Asked, scope: Scope) -> Places:
    """Return where in the scope the memories asked for are."""
    if asked.everything:
        return np.arange(len(scope.rows))
    rows = (n for n, _ in _asked_for(sql, owner, asked))
    return scope.places(np.fromiter(rows, np.int64))


def find_words(
    sql: sqlite3.Connection, owner: Owner, terms: Sequence[str], scope: Scope
) -> Iterator[Places]:
    """Yield for each word where in the scope the memories are that hold it."""
    # One text of numbers: a row for each costs ten times as much in Python.
    select = "SELECT group_concat(memory) FROM postings WHERE owner = ? AND word = ?"
    for term in terms:
        (numbers,) = sql.execute(select, (owner.n, owner.digest(term))).fetchone()
        if numbers:
            yield scope.places(np.fromstring(numbers, np.int64, sep=","))


def read_rows(sql: sqlite3.Connection, scored: dict[int, float]) -> list[Row]:
    """Return the memories of these row numbers in the same order, each with its score.

    One that is newer than the snapshot, known from a search on another thread, is left out.
    """
    select = "SELECT n, id, payload FROM memories WHERE n IN (SELECT value FROM json_each(?))"
    found = {n: rest for n, *rest in sql.execute(select, (json.dumps(list(scored)),))}
    return [
        Row(found[n][0], json.loads(found[n][1]), score)
        for n, score in scored.items()
        if n in found
    ]


def _asked_for(sql: sqlite3.Connection, owner: Owner, asked: Asked) -> Iterator[tuple[int, Row]]:
    if asked.turn_id is None:
        found = sql.execute(_OF_OWNER, (owner.n,))
    else:
        found = sql.execute(_OF_TURN, (owner.n, asked.turn_id))
    for n, memory_id, payload in found:
        row = Row(memory_id, json.loads(payload))
        if asked.admits(row.payload):
            yield n, row
