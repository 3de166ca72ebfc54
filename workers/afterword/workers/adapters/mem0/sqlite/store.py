"""mem0's vector store in one SQLite file: exact cosine and BM25 over each owner's own memories."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mem0.vector_stores.base import VectorStoreBase

from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.days import AskedDays, day_points, no_days
from afterword.workers.adapters.mem0.sqlite.filters import Filters, required_owner
from afterword.workers.adapters.mem0.sqlite.newer import lift_newer
from afterword.workers.adapters.mem0.sqlite.newest import newest_points
from afterword.workers.adapters.mem0.sqlite.owners import (
    Owner,
    erase_all_owners,
    erase_owner,
    find_owner,
)
from afterword.workers.adapters.mem0.sqlite.ranking import (
    Floats,
    Numbers,
    Positions,
    Scale,
    after_others,
    best_first,
    combine,
    lend,
    lend_meaning,
    lend_replies,
    word_points,
    words_in_common,
    yield_to_newer,
)
from afterword.workers.adapters.mem0.sqlite.rows import (
    OF_REPLY,
    REPLY_END,
    TIMES_SAID,
    BareText,
    Entry,
    Found,
    Indexed,
    IsRequest,
    Row,
    delete_row,
    find_positions,
    find_postings,
    find_requests,
    get_row,
    insert_row,
    list_owners,
    list_repeats,
    list_rows,
    list_rows_before,
    matches_of,
    read_payloads,
    read_rows,
    stored_text,
)
from afterword.workers.adapters.mem0.sqlite.schema import VERSION, create_or_check
from afterword.workers.adapters.mem0.sqlite.tokenizer import QueryWord, query_words
from afterword.workers.adapters.mem0.sqlite.upgrade import upgrade
from afterword.workers.adapters.mem0.sqlite.vector_cache import (
    NO_ROW,
    READING_S,
    OwnerVectors,
    VectorCache,
)
from afterword.workers.adapters.mem0.write_deadline import seconds_left
from afterword.workers.ports import BadCursor

#: The most distinct words of a query that are looked up. More add little.
MAX_QUERY_WORDS = 48

#: Of a memory that was found, so many words are compared with newer ones, of its beginning; a word
#: of more memories than the last number says little, and is expensive.
_COMPARED_CHARACTERS, _COMPARED_WORDS, _COMMON_WORD = 400, 24, 256

#: How much better than others a memory must be not to yield to a newer one: it competes with these.
_RIVALS = 40

#: What is not stored: a copy of the text for stores that build their own word index, the end of the
#: reply, and what a search adds.
_NOT_STORED = frozenset({"text_lemmatized", TIMES_SAID, REPLY_END})

COLLECTION = "memories"

#: How long a process waits for another one that upgrades the file.
UPGRADE_S = 600.0

Vector = Sequence[float] | Floats
Rows = list[Row]

#: What memories gain by when they were said.
TimePoints = Callable[[Numbers], Floats]


class SqliteStore(VectorStoreBase):  # type: ignore[misc]
    """Keeps memories embedded by one embedder. Every search and list needs a `user_id`.

    Threads and processes may use one file at once. Writing the same text with the same `turn_id`
    again adds no row and is no error. What a method has written survives a power cut.

    What was said several times, in whatever case and spacing, is found once: its newest memory,
    whose payload then has `times_said`. `bare` returns the text of a payload as it was said,
    `asked_days` the times that a query names: what was said then is preferred. `asks_about_user`
    returns whether a query asks for all that is known: then the newest memories are preferred.
    `is_request` returns whether a text only asks for work: such a memory comes after others that
    are about as good.

    The first searches of an owner read vectors for at most `reading_s` seconds each, newest first.
    With 100,000 memories or a busy machine they do not see the oldest ones.
    """

    def __init__(  # noqa: PLR0913 each is another part of a backend
        self,
        path: Path,
        *,
        embedder: str,
        dims: int,
        scale: Scale,
        bare: BareText = stored_text,
        asked_days: AskedDays = no_days,
        asks_about_user: Callable[[str], bool] = lambda _: False,
        is_request: IsRequest = lambda _: False,
        reading_s: float = READING_S,
    ) -> None:
        self._database = Database(path)
        self._cache = VectorCache(dims, scale, reading_s=reading_s)
        self._dims = dims
        self._scale = scale
        self._bare = bare
        self._asked_days = asked_days
        self._asks_about_user = asks_about_user
        self._is_request = is_request
        with self._database.writing(UPGRADE_S) as sql:
            if create_or_check(sql, embedder, dims) < VERSION:
                upgrade(sql, bare, is_request)

    def insert(
        self,
        vectors: Sequence[Vector],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Write these memories, all or none; raise `Unavailable` after the write deadline."""
        entries = [self._entry(*pair) for pair in zip(vectors, payloads or (), strict=True)]
        with self._database.writing() as sql:
            seconds_left()
            for memory_id, entry in zip(ids or (), entries, strict=True):
                insert_row(sql, memory_id, entry)

    def search(
        self,
        query: str,
        vectors: Vector,
        top_k: int = 5,
        filters: Mapping[str, Any] | None = None,
    ) -> Rows:
        """Return the owner's best memories for a query and its vector, with scores from 0 to 1."""
        wanted, vector = Filters.parse(filters), self._scale.reduced(self._unit(vectors))
        words, time_points = self._understood(query)
        with self._database.reading() as sql:
            owner = find_owner(sql, wanted.owner)
            if owner is None:
                return []
            cached = self._cache.get(sql, owner)
            among = find_positions(sql, owner, wanted, cached)
            scores = self._scores(sql, owner, words, time_points, vector, cached)
            rivals = best_first(scores, max(top_k, _RIVALS), among)
            requests = find_requests(sql, owner, cached.rows[rivals])
            lowered = after_others(scores[rivals], requests)
            return read_rows(sql, _best(lowered, rivals, top_k, cached))

    def get(self, vector_id: str) -> Row | None:
        """Return one memory, None if it does not exist."""
        with self._database.reading() as sql:
            found = get_row(sql, vector_id)
        return found[0] if found else None

    def update(
        self,
        vector_id: str,
        vector: Vector | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace the vector, the payload or both; raise `ValueError` for an unknown id."""
        with self._database.writing() as sql:
            found = get_row(sql, vector_id)
            if found is None:
                raise ValueError("there is no such memory")
            row, halves = found
            old = np.frombuffer(halves, "<f2")
            delete_row(sql, vector_id)
            entry = self._entry(old if vector is None else vector, payload or row.payload)
            insert_row(sql, vector_id, entry)

    def delete(self, vector_id: str) -> None:
        """Delete one memory; no error if it does not exist."""
        with self._database.writing() as sql:
            delete_row(sql, vector_id)

    def erase_owner(self, owner: str) -> None:
        """Erase an owner. Afterwards neither the file nor its log holds anything of them.

        Raises `Unavailable` if the log could not be emptied; call it again then.
        """
        with self._database.writing() as sql:
            found = find_owner(sql, owner)
            if found is not None:
                erase_owner(sql, found.n)
                self._cache.drop(found.n)
        self._database.truncate_wal()

    def empty_log(self) -> None:
        """Write the log into the file and empty it: it holds what was deleted or replaced.

        Raises `Unavailable` if a long transaction prevents it; call it again then.
        """
        self._database.truncate_wal()

    def close(self) -> None:
        """Close the file, after the transactions in progress have ended."""
        self._database.close()

    def create_col(self, name: str, vector_size: int, distance: str) -> None:
        """Raise `ValueError` unless this is the one collection of the file."""
        if (name, vector_size, distance) != (COLLECTION, self._dims, "cosine"):
            raise ValueError(f"the embedded store has one collection, {COLLECTION}")

    def list_cols(self) -> list[str]:
        """Return the one collection."""
        return [COLLECTION]

    def col_info(self) -> dict[str, Any]:
        """Return the name and size of the collection."""
        with self._database.reading() as sql:
            (count,) = sql.execute("SELECT count(*) FROM memories").fetchone()
        return {"name": COLLECTION, "count": count, "dims": self._dims}

    def delete_col(self) -> None:
        """Erase every owner."""
        with self._database.writing() as sql:
            erase_all_owners(sql)
        self._database.truncate_wal()

    def reset(self) -> None:
        """Erase every owner."""
        self.delete_col()

    def list(
        self, filters: Mapping[str, Any] | None = None, top_k: int | None = None
    ) -> list[Rows]:
        """Return the owner's memories, oldest first, inside one more list, as mem0 expects."""
        wanted = Filters.parse(filters)
        with self._database.reading() as sql:
            owner = find_owner(sql, wanted.owner)
            return [list_rows(sql, owner, wanted, top_k) if owner else []]

    def list_page(self, owner: str, limit: int, after: str | None) -> tuple[Rows, str | None]:
        """Return a page of an owner's memories, newest first, and what continues after it."""
        before = _row_number(after)
        with self._database.reading() as sql:
            found = find_owner(sql, owner)
            rows = list_rows_before(sql, found, before, limit + 1) if found else []
        page = rows[:limit]
        return [row for _, row in page], str(page[-1][0]) if len(rows) > limit else None

    def list_repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of an owner's memories that a search counts as one with this text."""
        with self._database.reading() as sql:
            found = find_owner(sql, owner)
            return list_repeats(sql, found, text) if found else []

    def list_owners(self, limit: int, after: str | None) -> tuple[Sequence[str], str | None]:
        """Return the names of owners in the order of their rows, and what continues after them."""
        with self._database.reading() as sql:
            found = list_owners(sql, _row_number(after, otherwise=0), limit + 1)
        names = [name for _, name in found[:limit] if name]
        return names, str(found[limit - 1][0]) if len(found) > limit else None

    def _understood(self, query: str) -> tuple[Sequence[QueryWord], TimePoints]:
        if self._asks_about_user(query):
            return (), newest_points  # its words are those of the question, not of what is known
        return query_words(query)[:MAX_QUERY_WORDS], partial(day_points, self._asked_days(query))

    def _scores(
        self,
        sql: sqlite3.Connection,
        owner: Owner,
        words: Sequence[QueryWord],
        time_points: TimePoints,
        vector: Floats,
        cached: OwnerVectors,
    ) -> Floats:
        tokens = [token for word in words for token, _ in word]
        both = [*tokens, *(OF_REPLY + token for token in tokens)]
        postings = find_postings(sql, owner, both, cached)
        points = lend(word_points(matches_of(words, postings), cached.credit), cached.near)
        replies = word_points(matches_of(words, postings, OF_REPLY), cached.credit)
        points += lend_replies(replies, cached.lengths, cached.near)
        points += time_points(cached.times)
        similarity = self._scale.similarity(cached.vectors.products(vector))
        scores = combine(lend_meaning(similarity, cached.near), points)
        return lift_newer(scores, cached, partial(self._words_in_common, sql, owner, cached))

    def _words_in_common(
        self,
        sql: sqlite3.Connection,
        owner: Owner,
        cached: OwnerVectors,
        found: Positions,
        among: Positions,
    ) -> Floats:
        """Return what the words of each of some memories are worth in others."""
        stored = read_payloads(sql, cached.rows[found].tolist())
        texts = [stored.get(n, ("", "{}")) for n in cached.rows[found].tolist()]
        words = [self._compared_words(Row.read(*one)) for one in texts]
        tokens = {token for each in words for word in each for token, _ in word}
        postings = find_postings(sql, owner, tokens, cached, most=_COMMON_WORD)
        matches = [list(matches_of(each, postings)) for each in words]
        return words_in_common(matches, cached.credit, among)

    def _compared_words(self, row: Row) -> Sequence[QueryWord]:
        text = self._bare(row.payload)[:_COMPARED_CHARACTERS]
        return query_words(text)[:_COMPARED_WORDS]

    def _entry(self, vector: Vector, payload: Mapping[str, Any]) -> Entry:
        kept = {key: value for key, value in payload.items() if key not in _NOT_STORED}
        return Entry(
            required_owner(kept),
            stored_text(kept),
            json.dumps(kept, ensure_ascii=False, separators=(",", ":")),
            self._unit(vector).astype("<f2").tobytes(),
            Indexed.of(payload, self._bare, self._is_request),
        )

    def _unit(self, vector: Vector) -> Floats:
        floats = np.asarray(vector, np.float32)
        if floats.shape != (self._dims,) or not np.isfinite(floats).all():
            raise ValueError(f"a vector must be {self._dims} finite numbers")
        unit: Floats = floats / (float(np.linalg.norm(floats)) or 1.0)
        return unit


def _row_number(cursor: str | None, otherwise: int = NO_ROW) -> int:
    if cursor is None:
        return otherwise
    if not (cursor.isascii() and cursor.isdigit()) or int(cursor[:20]) > NO_ROW:
        raise BadCursor
    return int(cursor[:20])


def _best(scores: Floats, places: Positions, count: int, cached: OwnerVectors) -> Sequence[Found]:
    """Return the best of these rivals, after the older of them have yielded."""
    lowered = yield_to_newer(scores, cached.vectors.at(places), cached.rows[places])
    best = np.argsort(-lowered, kind="stable")[:count]
    columns = (cached.rows[places[best]], lowered[best], cached.counts[places[best]])
    return [Found(*one) for one in zip(*(column.tolist() for column in columns), strict=True)]
