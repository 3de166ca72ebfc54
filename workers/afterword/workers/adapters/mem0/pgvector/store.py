"""mem0's pgvector store with a turn's rows all or none, exact per user, and errors of ours."""

from __future__ import annotations

import json
import math
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from mem0.vector_stores.pgvector import PGVector
from psycopg import sql
from psycopg_pool import ConnectionPool

from afterword.workers.adapters.mem0.add_context import step
from afterword.workers.adapters.mem0.pgvector import schema as pgvector_schema
from afterword.workers.adapters.mem0.pgvector.errors import ours
from afterword.workers.rules.write_deadline import seconds_left

#: Seconds until a connection must be there, and until a peer that is gone counts as gone.
CONNECT_S = 5
GONE_S = 10

_OURS = uuid.UUID("0b6dd1c5-5d8a-4a5a-9d1e-7c2f3a5b8e94")
_INSERT = "INSERT INTO {} (id, vector, payload) VALUES (%s, %s, %s) ON CONFLICT (id) DO NOTHING"
_WITHIN = "SELECT set_config('statement_timeout', %s, true)"
_FORGET = "DELETE FROM {} WHERE payload->>'user_id' = %s"


def pool(url: str, connections: int) -> ConnectionPool:
    """Return a pool that is not open yet; it looks at a connection before it lends it."""
    return ConnectionPool(
        url,
        kwargs={
            "connect_timeout": CONNECT_S,
            "tcp_user_timeout": GONE_S * 1000,
            "keepalives_idle": GONE_S,
            "application_name": "afterword",
            "prepare_threshold": None,  # a pooler may stand in between
        },
        min_size=1,
        max_size=connections,
        open=False,
        timeout=CONNECT_S,
        reconnect_timeout=CONNECT_S,
        check=ConnectionPool.check_connection,
        name="afterword-memories",
    )


class PgVectorStore(PGVector):  # type: ignore[misc]
    """Keeps memories in one table; searches read all of one user's rows and none of others."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._collection_ensured: bool = False
        self._making = threading.Lock()

    def ensure(self) -> None:
        """Make the table unless it is there, see `pgvector_schema.ensure`."""
        with self._making, self._errors(writing=False):
            if not self._collection_ensured:
                with self.connection_pool.connection() as connection:
                    pgvector_schema.ensure(connection, self.embedding_model_dims)
                self._collection_ensured = True

    def insert(
        self,
        vectors: Sequence[Sequence[float]],
        payloads: Sequence[Mapping[str, Any]] | None = None,
        ids: Sequence[str] | None = None,  # noqa: ARG002 - ours say what the row is
    ) -> None:
        """Insert the rows of a turn, all or none; those that are there already stay as they are.

        What this thread's write may still take, PostgreSQL does not exceed either.
        """
        rows = [
            (_row_id(payload), list(vector), json.dumps(payload))
            for vector, payload in zip(vectors, payloads or (), strict=True)
        ]
        self._ensure_collection()
        with self._get_cursor(commit=True) as cursor:
            left_s = seconds_left()
            if left_s is not None:
                cursor.execute(_WITHIN, [f"{math.ceil(left_s * 1000)}ms"])
            cursor.executemany(sql.SQL(_INSERT).format(self._col()), rows)

    def forget(self, owner: str) -> None:
        """Delete every row of an owner."""
        self._ensure_collection()
        with self._get_cursor(commit=True) as cursor:
            cursor.execute(sql.SQL(_FORGET).format(self._col()), [owner])

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
        with step():
            try:
                yield
            except psycopg.Error as error:
                raise ours(error, writing=writing) from None


def _row_id(payload: Mapping[str, Any]) -> uuid.UUID:
    """Name a row by what it says: the same fact of the same turn is the same row, ever so often."""
    parts = [str(payload.get(name)) for name in ("user_id", "turn_id", "data")]
    return uuid.uuid5(_OURS, json.dumps(parts))
