"""mem0's vector store in one SQLite file: exact cosine and BM25 over each owner's own memories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mem0.vector_stores.base import VectorStoreBase

from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.filters import Filters, required_owner
from afterword.workers.adapters.mem0.sqlite.owners import erase_all_owners, erase_owner, find_owner
from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Scale, best_first, bm25, combine
from afterword.workers.adapters.mem0.sqlite.rows import (
    Entry,
    Row,
    delete_row,
    find_matches,
    find_positions,
    get_row,
    insert_row,
    list_rows,
    read_rows,
)
from afterword.workers.adapters.mem0.sqlite.schema import create_or_check
from afterword.workers.adapters.mem0.sqlite.tokenizer import tokenize
from afterword.workers.adapters.mem0.sqlite.vector_cache import VectorCache
from afterword.workers.rules.write_deadline import seconds_left

#: The most distinct tokens of a query that are looked up. More add little.
MAX_QUERY_TOKENS = 48

#: A copy of the text for stores that build their own word index. Not stored.
_UNUSED_COPY = "text_lemmatized"

COLLECTION = "memories"

Vector = Sequence[float] | Floats
Rows = list[Row]


class SqliteStore(VectorStoreBase):  # type: ignore[misc]
    """Keeps memories embedded by one embedder. Every search and list needs a `user_id`.

    Threads and processes may use one file at once. Writing the same text with the same `turn_id`
    again adds no row and is no error. What a method has written survives a power cut.
    """

    def __init__(self, path: Path, *, embedder: str, dims: int, scale: Scale) -> None:
        self._database = Database(path)
        self._cache = VectorCache(dims)
        self._dims = dims
        self._scale = scale
        with self._database.writing() as sql:
            create_or_check(sql, embedder, dims)

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
        wanted, vector = Filters.parse(filters), self._unit(vectors)
        tokens = list(dict.fromkeys(tokenize(query)))[:MAX_QUERY_TOKENS]
        with self._database.reading() as sql:
            owner = find_owner(sql, wanted.owner)
            if owner is None:
                return []
            cached = self._cache.get(sql, owner)
            word_scores = bm25(find_matches(sql, owner, tokens, cached), cached.lengths)
            scores = combine(cached.vectors @ vector, word_scores, self._scale)
            positions = find_positions(sql, owner, wanted, cached)
            best = positions[best_first(scores[positions], top_k)]
            numbers, values = cached.rows[best].tolist(), scores[best].tolist()
            return read_rows(sql, dict(zip(numbers, values, strict=True)))

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

    def _entry(self, vector: Vector, payload: Mapping[str, Any]) -> Entry:
        kept = {key: value for key, value in payload.items() if key != _UNUSED_COPY}
        text = str(kept.get("data", ""))
        return Entry(
            required_owner(kept),
            text,
            json.dumps(kept, ensure_ascii=False, separators=(",", ":")),
            self._unit(vector).astype("<f2").tobytes(),
            tuple(tokenize(text)),
        )

    def _unit(self, vector: Vector) -> Floats:
        floats = np.asarray(vector, np.float32)
        if floats.shape != (self._dims,) or not np.isfinite(floats).all():
            raise ValueError(f"a vector must be {self._dims} finite numbers")
        unit: Floats = floats / (float(np.linalg.norm(floats)) or 1.0)
        return unit
