"""mem0's pgvector store: a turn's rows written all or none, exact search per user, our errors."""

from __future__ import annotations

import json
import math
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from mem0.vector_stores.pgvector import PGVector
from psycopg import sql

from afterword.shared.same_text import same_text_key
from afterword.workers.adapters.mem0.add_context import add_step
from afterword.workers.adapters.mem0.answers import readable_payload
from afterword.workers.adapters.mem0.pgvector.database import (
    ensure_table,
    translate_postgres_errors,
)
from afterword.workers.adapters.mem0.write_deadline import seconds_left
from afterword.workers.ports import BadCursor

_ROW_NAMESPACE = uuid.UUID("0b6dd1c5-5d8a-4a5a-9d1e-7c2f3a5b8e94")
_INSERT = "INSERT INTO {} (id, vector, payload) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING"
_SET_TIMEOUT = "SELECT set_config('statement_timeout', %s, true)"
#: Times as texts: their order need not be exact, but the same for each page.
_BY_TIME = "COALESCE(payload->>'created_at', '') COLLATE \"C\""
_PAGE = (
    "SELECT id, payload FROM {} WHERE payload->>'user_id' = %s "  # noqa: S608 - constants
    f"AND (%s::uuid IS NULL OR ({_BY_TIME}, id) < (%s, %s::uuid)) "
    f"ORDER BY {_BY_TIME} DESC, id DESC LIMIT %s"
)
#: The next name by the index of owners, one look at a time: DISTINCT would read every row.
_OWNERS = (
    "WITH RECURSIVE owners AS ("
    " (SELECT payload->>'user_id' AS name FROM {table} WHERE payload->>'user_id' > %s"
    "  ORDER BY 1 LIMIT 1)"
    " UNION ALL SELECT (SELECT payload->>'user_id' FROM {table}"
    "  WHERE payload->>'user_id' > owners.name ORDER BY 1 LIMIT 1)"
    " FROM owners WHERE owners.name IS NOT NULL"
    ") SELECT name FROM owners WHERE name IS NOT NULL LIMIT %s"
)
_TEXTS = "SELECT id, payload->>'data' FROM {} WHERE payload->>'user_id' = %s"
_DELETE_OWNER = "DELETE FROM {} WHERE payload->>'user_id' = %s"


class PgVectorStore(PGVector):  # type: ignore[misc]
    """Keeps memories in one table. A search reads all rows of one user and none of others."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._collection_ensured: bool = False
        self._ensuring = threading.Lock()

    def ensure(self) -> None:
        """Create the table if it is missing; see `database.ensure_table`."""
        with self._ensuring, self._errors(writing=False):
            if not self._collection_ensured:
                with self.connection_pool.connection() as connection:
                    ensure_table(connection, self.embedding_model_dims)
                self._collection_ensured = True

    def insert(
        self,
        vectors: Sequence[Sequence[float]],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,  # noqa: ARG002 - derived from the row, see `_row_id`
    ) -> None:
        """Insert the rows of a turn, all or none. Rows that exist already are left unchanged.

        PostgreSQL cancels the statements at this thread's write deadline.
        """
        rows = [
            (_row_id(payload), list(vector), json.dumps(payload))
            for vector, payload in zip(vectors, payloads or (), strict=True)
        ]
        self._ensure_collection()
        with self._get_cursor(commit=True) as cursor:
            left_s = seconds_left()
            if left_s is not None:
                cursor.execute(_SET_TIMEOUT, [f"{math.ceil(left_s * 1000)}ms"])
            cursor.executemany(sql.SQL(_INSERT).format(self._col()), rows)

    def search(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Search as mem0's store does; rows that mem0 could not read come as unreadable ones."""
        return [_readable(row) for row in super().search(*args, **kwargs)]

    def list(self, *args: Any, **kwargs: Any) -> list[Any]:
        """List as mem0's store does, inside one more list."""
        return [[_readable(row) for row in rows] for rows in super().list(*args, **kwargs)]

    def get(self, vector_id: str) -> Any:
        """Return one memory, None if there is none; nothing but a UUID can be the id of one."""
        try:
            uuid.UUID(vector_id)
        except ValueError:
            return None
        found = super().get(vector_id)
        return found and _readable(found)

    def list_page(
        self, owner: str, limit: int, after: str | None
    ) -> tuple[Sequence[Any], str | None]:
        """Return a page of an owner's memories, newest first, and what continues after it."""
        at, row_id = _position(after)
        self._ensure_collection()
        with self._get_cursor() as cursor:
            page = sql.SQL(_PAGE).format(self._col())
            cursor.execute(page, [owner, row_id, at, row_id, limit + 1])
            found = cursor.fetchall()
        last = found[limit - 1] if len(found) > limit else None
        return [_readable(_StoreRow(str(one[0]), one[1])) for one in found[:limit]], _cursor(last)

    def list_repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of an owner's memories that say a text: all of them are compared."""
        self._ensure_collection()
        with self._get_cursor() as cursor:
            cursor.execute(sql.SQL(_TEXTS).format(self._col()), [owner])
            same = same_text_key(text)
            return [str(row_id) for row_id, other in cursor if same_text_key(other or "") == same]

    def list_owners(self, limit: int, after: str | None) -> tuple[Sequence[str], str | None]:
        """Return owners by name, and what continues after them."""
        if after is not None and not after.isprintable():
            raise BadCursor
        self._ensure_collection()
        with self._get_cursor() as cursor:
            cursor.execute(sql.SQL(_OWNERS).format(table=self._col()), [after or "", limit + 1])
            names = [row[0] for row in cursor.fetchall()]
        return names[:limit], names[limit - 1] if len(names) > limit else None

    def erase_owner(self, owner: str) -> None:
        """Delete every row of an owner."""
        self._ensure_collection()
        with self._get_cursor(commit=True) as cursor:
            cursor.execute(sql.SQL(_DELETE_OWNER).format(self._col()), [owner])

    def close(self) -> None:
        """Close the connections."""
        self.connection_pool.close()

    def _ensure_collection(self) -> None:
        if not self._collection_ensured:
            self.ensure()

    @contextmanager
    def _get_cursor(self, commit: bool = False) -> Iterator[psycopg.Cursor]:  # noqa: FBT001, FBT002
        with self._errors(writing=commit), super()._get_cursor(commit) as cursor:
            yield cursor

    @contextmanager
    def _errors(self, *, writing: bool) -> Iterator[None]:
        with add_step(), translate_postgres_errors(self.connection_pool, writing=writing):
            yield


@dataclass(slots=True)
class _StoreRow:
    id: str
    payload: Any


def _cursor(row: Any) -> str | None:
    """Return what continues after a row."""
    if row is None:
        return None
    at = row[1].get("created_at") if isinstance(row[1], dict) else None
    return f"{row[0]}@{at if isinstance(at, str) else ''}"


def _position(cursor: str | None) -> tuple[str, str | None]:
    """Return the time and the id of the row that a page continues after."""
    if cursor is None:
        return "", None
    row_id, at_sign, at = cursor.partition("@")
    if not at_sign or not at.isprintable():
        raise BadCursor
    try:
        return at, str(uuid.UUID(row_id))
    except ValueError:
        raise BadCursor from None


def _readable(row: Any) -> Any:
    row.payload = dict(readable_payload(row.payload))
    return row


def _row_id(payload: Mapping[str, Any]) -> uuid.UUID:
    """Derive the id of a row from its content: the same fact of the same turn is the same row.

    A memory that was copied from another backend is one row for each that it was there.
    """
    parts = [str(payload.get(name)) for name in ("user_id", "turn_id", "data")]
    parts += [str(copied) for copied in [payload.get("copied_from")] if copied]
    return uuid.uuid5(_ROW_NAMESPACE, json.dumps(parts))
