"""The SQL on memories: one row each, and one posting for each of its distinct tokens."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any, TypeAlias

import numpy as np

from afterword.shared.same_text import same_text_key
from afterword.workers.adapters.mem0.answers import readable_payload
from afterword.workers.adapters.mem0.sqlite.filters import Filters
from afterword.workers.adapters.mem0.sqlite.owners import Owner, bump_epoch, ensure_owner
from afterword.workers.adapters.mem0.sqlite.ranking import Marks, Numbers, Positions
from afterword.workers.adapters.mem0.sqlite.tokenizer import QueryWord, index_text
from afterword.workers.adapters.mem0.sqlite.vector_cache import OwnerVectors

#: The key of a payload with the end of the reply to the turn. Only its words are indexed.
REPLY_END = "reply_end"

#: Sets the words of a reply apart from those of a memory: no token has a space.
OF_REPLY = "reply "

#: The token of a memory that only asks for work: no word has a space.
REQUEST = "only asks"

#: The key of a payload that says how often a memory was said, if more than once. Never stored.
TIMES_SAID = "times_said"

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
    def read(cls, memory_id: str, payload: str, score: float | None = None, count: int = 1) -> Row:
        """Read the row of a memory, whatever was written into the file.

        A `count` of more than one is added to its payload, as `times_said`.
        """
        try:
            found = json.loads(payload)
        except (ValueError, RecursionError):
            found = None
        repeated = {TIMES_SAID: count} if count > 1 else {}
        return cls(memory_id, {**readable_payload(found), **repeated}, score)


@dataclass(frozen=True, slots=True)
class Found:
    """A memory that a search found: its row number, its score and how often it was said."""

    n: int
    score: float
    count: int


#: Returns the text of a payload as it was said: without what a backend has put before it.
BareText: TypeAlias = Callable[[Mapping[str, Any]], str]


#: Returns whether a text only asks for work.
IsRequest: TypeAlias = Callable[[str], bool]


def stored_text(payload: Mapping[str, Any]) -> str:
    """Return the text of a payload as it is stored."""
    return str(payload.get("data", ""))


@dataclass(frozen=True, slots=True)
class Indexed:
    """What is stored of a text so that it is found: see the columns of the same names."""

    folded: str
    conversation: str
    said_at: int
    length: int
    tokens: Sequence[str]
    reply_tokens: Sequence[str] = ()

    @classmethod
    def of(cls, payload: Mapping[str, Any], bare: BareText, is_request: IsRequest) -> Indexed:
        """Index the text of a payload."""
        length, tokens = index_text(stored_text(payload))
        kinds = [REQUEST] if is_request(bare(payload)) else []
        conversation, said_at = payload.get("conversation_id"), payload.get("created_at")
        return cls(
            same_text_key(bare(payload)),
            conversation if isinstance(conversation, str) else "",
            _seconds(said_at),
            length,
            [*tokens, *kinds],
            index_text(str(payload.get(REPLY_END, ""))).tokens,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """A memory prepared before the write transaction, which is held for less time that way."""

    owner: str
    text: str
    payload: str
    vector: bytes
    indexed: Indexed


def insert_row(sql: sqlite3.Connection, memory_id: str, entry: Entry) -> None:
    """Write a memory, unless its turn has one with the same text already."""
    owner = ensure_owner(sql, entry.owner)
    insert = """
        INSERT INTO memories (id, owner, payload, digest, vector, length)
        VALUES (?, ?, ?, ?, ?, 0)
        ON CONFLICT (owner, turn_id, digest) WHERE turn_id IS NOT NULL DO NOTHING
    """
    digest = owner.digest(entry.text)
    written = sql.execute(insert, (memory_id, owner.n, entry.payload, digest, entry.vector))
    if written.rowcount and written.lastrowid is not None:
        index_row(sql, owner, written.lastrowid, entry.indexed)


def index_row(sql: sqlite3.Connection, owner: Owner, n: int, indexed: Indexed) -> None:
    """Write what a row that is not indexed yet is found by."""
    sql.execute(
        "UPDATE memories SET length = ?, folded = ?, conversation = ?, said_at = ? WHERE n = ?",
        (
            indexed.length,
            owner.digest(indexed.folded),
            owner.digest(indexed.conversation),
            indexed.said_at,
            n,
        ),
    )
    words = [*indexed.tokens, *(OF_REPLY + token for token in indexed.reply_tokens)]
    tokens = [(owner.n, owner.digest(word), n) for word in words]
    sql.executemany("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?)", tokens)


def _seconds(value: object) -> int:
    """Return a time of a payload in seconds since 1970, 0 if it is none."""
    try:
        at = datetime.fromisoformat(str(value))
        return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return 0


def delete_row(sql: sqlite3.Connection, memory_id: str) -> None:
    """Delete a memory, if it exists, and invalidate the caches of all processes."""
    row = sql.execute("SELECT n, owner FROM memories WHERE id = ?", (memory_id,)).fetchone()
    if row is not None:
        sql.execute("DELETE FROM tokens WHERE memory = ? AND owner = ?", row)
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


def list_rows_before(
    sql: sqlite3.Connection, owner: Owner, before: int, limit: int
) -> list[tuple[int, Row]]:
    """Return an owner's memories below a row number, newest first, each with its number."""
    select = """
        SELECT n, id, payload FROM memories WHERE owner = ? AND n < ? ORDER BY n DESC LIMIT ?
    """
    found = sql.execute(select, (owner.n, before, limit))
    return [(n, Row.read(memory_id, payload)) for n, memory_id, payload in found]


def list_repeats(sql: sqlite3.Connection, owner: Owner, text: str) -> list[str]:
    """Return the ids of an owner's memories that say a text, in whatever case and spacing."""
    select = "SELECT id FROM memories WHERE owner = ? AND folded = ? ORDER BY n"
    return [row[0] for row in sql.execute(select, (owner.n, owner.digest(same_text_key(text))))]


def list_owners(sql: sqlite3.Connection, after: int, limit: int) -> list[tuple[int, str | None]]:
    """Return owners above a row number, each with the name that one of its memories has.

    The name is None if there is no memory any more, or if its payload cannot be read.
    """
    select = """
        SELECT n, (SELECT payload FROM memories WHERE owner = owners.n ORDER BY memories.n LIMIT 1)
        FROM owners WHERE n > ? ORDER BY n LIMIT ?
    """
    found = sql.execute(select, (after, limit))
    return [(n, payload and Row.read("", payload).payload.get("user_id")) for n, payload in found]


def find_positions(
    sql: sqlite3.Connection, owner: Owner, filters: Filters, cached: OwnerVectors
) -> Positions | None:
    """Return the positions of the selected memories in the owner's cached arrays, None for all."""
    if filters.select_all:
        return None
    rows = (n for n, _ in _selected(sql, owner, filters))
    return cached.positions(np.fromiter(rows, np.int64))


def find_postings(
    sql: sqlite3.Connection,
    owner: Owner,
    tokens: Iterable[str],
    cached: OwnerVectors,
    *,
    most: int = -1,
) -> Mapping[str, Positions]:
    """Return the positions of the memories that have each token, of those that any has.

    A token that `most` memories have is left out.
    """
    # One statement for all, and one string of numbers for each: a row for each number, or a
    # statement for each token, costs most of a search in Python.
    select = """
        SELECT value, (SELECT group_concat(memory) FROM
        (SELECT memory FROM tokens WHERE owner = ? AND token = value LIMIT ?))
        FROM json_each(?)
    """
    named = {owner.digest(token): token for token in tokens}
    rows = sql.execute(select, (owner.n, most, json.dumps(list(named))))
    listed = {digest: numbers for digest, numbers in rows if numbers}
    counts = {digest: numbers.count(",") + 1 for digest, numbers in listed.items()}
    few = [digest for digest in listed if counts[digest] != most]
    numbers = np.fromstring(",".join(listed[digest] for digest in few), np.int64, sep=",")
    parts = cached.positions_of_each(numbers, [counts[digest] for digest in few])
    return {named[digest]: part for digest, part in zip(few, parts, strict=True)}


def find_requests(sql: sqlite3.Connection, owner: Owner, rows: Numbers) -> Marks:
    """Return which of these rows only ask for work."""
    select = """
        SELECT memory FROM tokens WHERE owner = ? AND token = ?
        AND memory IN (SELECT value FROM json_each(?))
    """
    which = (owner.n, owner.digest(REQUEST), json.dumps(rows.tolist()))
    found = [n for (n,) in sql.execute(select, which)]
    return np.isin(rows, found)


def matches_of(
    words: Iterable[QueryWord], postings: Mapping[str, Positions], kind: str = ""
) -> Iterator[list[tuple[Positions, float]]]:
    """Yield, for each word of a query, where its tokens occur and what such a match counts."""
    for word in words:
        found = ((postings.get(kind + token), share) for token, share in word)
        matches = [(positions, share) for positions, share in found if positions is not None]
        if matches:
            yield matches


def read_payloads(sql: sqlite3.Connection, rows: Iterable[int]) -> Mapping[int, tuple[str, str]]:
    """Return the id and the payload, as JSON, of each of these rows that exists."""
    select = "SELECT n, id, payload FROM memories WHERE n IN (SELECT value FROM json_each(?))"
    found = sql.execute(select, (json.dumps(list(rows)),))
    return {n: (memory_id, payload) for n, memory_id, payload in found}


def read_rows(sql: sqlite3.Connection, found: Sequence[Found]) -> list[Row]:
    """Return the memories that were found, in the same order.

    Leaves out rows that are newer than this snapshot: another thread's search may have added them
    to the cache.
    """
    stored = read_payloads(sql, [one.n for one in found])
    there = [one for one in found if one.n in stored]
    return [Row.read(*stored[one.n], one.score, one.count) for one in there]


def _selected(sql: sqlite3.Connection, owner: Owner, filters: Filters) -> Iterator[tuple[int, Row]]:
    if filters.turn_id is None:
        found = sql.execute(_OF_OWNER, (owner.n,))
    else:
        found = sql.execute(_OF_TURN, (owner.n, filters.turn_id))
    for n, memory_id, payload in found:
        row = Row.read(memory_id, payload)
        if filters.match(row.payload):
            yield n, row
