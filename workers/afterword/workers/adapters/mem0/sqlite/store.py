"""mem0's vector store in one SQLite file: exact cosine and BM25 over each owner's own memories."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mem0.vector_stores.base import VectorStoreBase

from afterword.workers.adapters.mem0.sqlite.database import Database
from afterword.workers.adapters.mem0.sqlite.filters import Asked, owner_in
from afterword.workers.adapters.mem0.sqlite.owners import erase_all, erase_owner, find_owner
from afterword.workers.adapters.mem0.sqlite.ranking import Floats, Scale, best_first, bm25, fuse
from afterword.workers.adapters.mem0.sqlite.rows import (
    Entry,
    Row,
    delete_row,
    find_places,
    find_words,
    get_row,
    insert_row,
    list_rows,
    read_rows,
)
from afterword.workers.adapters.mem0.sqlite.schema import prepare
from afterword.workers.adapters.mem0.sqlite.tokenizer import words
from afterword.workers.adapters.mem0.sqlite.vector_cache import Scopes
from afterword.workers.rules.write_deadline import seconds_left

#: Different words of a query that are looked up; the rest of a long one adds little.
MOST_WORDS = 48

#: A copy of the text that mem0 makes for stores which index it themselves.
_SPARE = "text_lemmatized"

COLLECTION = "memories"

Vector = Sequence[float] | Floats
Rows = list[Row]


class SqliteStore(VectorStoreBase):  # type: ignore[misc]
    """Keeps the memories that one embedder embedded; every look at them names a `user_id`.

    Threads and processes may use one file at once. A turn's memory is written once: the same
    text under the same `turn_id` again makes no second row and is no error. What is written
    when a method returns outlives a power cut.
    """

    def __init__(self, path: Path, *, embedder: str, dims: int, scale: Scale) -> None:
        self._database = Database(path)
        self._scopes = Scopes(dims)
        self._dims = dims
        self._scale = scale
        with self._database.writing() as sql:
            prepare(sql, embedder, dims)

    def insert(
        self,
        vectors: Sequence[Vector],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Write these memories, all or none, unless it is too late for that."""
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
        """Return the owner's best memories for a query and its vector, scored from 0 to 1."""
        asked, vector = Asked.read(filters), self._unit(vectors)
        terms = list(dict.fromkeys(words(query)))[:MOST_WORDS]
        with self._database.reading() as sql:
            owner = find_owner(sql, asked.owner)
            if owner is None:
                return []
            scope = self._scopes.of(sql, owner)
            matches = bm25(find_words(sql, owner, terms, scope), scope.lengths)
            scores = fuse(scope.vectors @ vector, matches, self._scale)
            places = find_places(sql, owner, asked, scope)
            best = places[best_first(scores[places], top_k)]
            numbers, values = scope.rows[best].tolist(), scores[best].tolist()
            return read_rows(sql, dict(zip(numbers, values, strict=True)))

    def get(self, vector_id: str) -> Row | None:
        """Return one memory."""
        with self._database.reading() as sql:
            found = get_row(sql, vector_id)
        return found[0] if found else None

    def update(
        self,
        vector_id: str,
        vector: Vector | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace what is given of a memory; raise `ValueError` if there is no such memory."""
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
        """Delete one memory; no error if it is gone."""
        with self._database.writing() as sql:
            delete_row(sql, vector_id)

    def forget(self, owner: str) -> None:
        """Erase an owner; neither the file nor its log holds anything of them afterwards.

        Raises `Unavailable` if the log could not be emptied; doing it again mends that.
        """
        with self._database.writing() as sql:
            found = find_owner(sql, owner)
            if found is not None:
                erase_owner(sql, found.n)
                self._scopes.drop(found.n)
        self._database.scrub()

    def close(self) -> None:
        """Close the file, once all that is under way has ended."""
        self._database.close()

    def create_col(self, name: str, vector_size: int, distance: str) -> None:
        """Raise `ValueError` unless the one collection of this file is meant."""
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
            erase_all(sql)
        self._database.scrub()

    def reset(self) -> None:
        """Erase every owner."""
        self.delete_col()

    def list(
        self, filters: Mapping[str, Any] | None = None, top_k: int | None = None
    ) -> list[Rows]:
        """Return the owner's memories, oldest first, in a list of one list, as mem0 reads it."""
        asked = Asked.read(filters)
        with self._database.reading() as sql:
            owner = find_owner(sql, asked.owner)
            return [list_rows(sql, owner, asked, top_k) if owner else []]

    def _entry(self, vector: Vector, payload: Mapping[str, Any]) -> Entry:
        kept = {key: value for key, value in payload.items() if key != _SPARE}
        text = str(kept.get("data", ""))
        return Entry(
            owner_in(kept),
            text,
            json.dumps(kept, ensure_ascii=False, separators=(",", ":")),
            self._unit(vector).astype("<f2").tobytes(),
            tuple(words(text)),
        )

    def _unit(self, vector: Vector) -> Floats:
        floats = np.asarray(vector, np.float32)
        if floats.shape != (self._dims,) or not np.isfinite(floats).all():
            raise ValueError(f"a vector must be {self._dims} finite numbers")
        unit: Floats = floats / (float(np.linalg.norm(floats)) or 1.0)
        return unit
