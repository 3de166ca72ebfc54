"""The table of memories in PostgreSQL: made once, by whoever comes first, and looked at by all."""

from __future__ import annotations

import psycopg
from psycopg import errors, sql

from afterword.shared.errors import Misconfigured

TABLE = "afterword_memories"

#: Whoever makes or looks at the table holds this lock; a number that nobody else takes by chance.
_LOCK = 0x6166_7465_7277

_COLUMNS = "(id uuid PRIMARY KEY, vector vector({dims}) NOT NULL, payload jsonb NOT NULL)"
_MAKE = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    f"CREATE TABLE IF NOT EXISTS {TABLE} {_COLUMNS}",
    # Equality on these two finds the few rows of a user; an index on vectors would find the
    # nearest of all users first, and leave out most of this one's.
    f"CREATE INDEX IF NOT EXISTS {TABLE}_user ON {TABLE} ((payload->>'user_id'))",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_turn ON {TABLE} ((payload->>'turn_id'))",
)
_DIMS = "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'vector'"


def ensure(connection: psycopg.Connection, dims: int) -> None:
    """Make the table unless it is there; raise `Misconfigured` if it cannot serve `dims` numbers.

    In one transaction under a lock: any number of processes may do so at once.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if _dims(connection) is None:
            _make(connection, dims)
        found = _dims(connection)
    if found != dims:
        raise Misconfigured(
            "AFTERWORD_EMBEDDER",
            f"its vectors have {dims} numbers, those in the table {TABLE} have {found}: "
            "take the embedder they were made with, or another database",
        )


def _make(connection: psycopg.Connection, dims: int) -> None:
    try:
        for statement in _MAKE:
            connection.execute(sql.SQL(statement).format(dims=sql.Literal(dims)))
    except errors.ReadOnlySqlTransaction:
        raise
    except (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.UndefinedFile):
        raise Misconfigured(
            "AFTERWORD_POSTGRES_URL",
            "its user cannot make the extension `vector` and a table there: install pgvector, and "
            "let an administrator say CREATE EXTENSION vector and GRANT CREATE ON SCHEMA",
        ) from None


def _dims(connection: psycopg.Connection) -> int | None:
    """Return how many numbers the table's vectors have, None if there is no table."""
    row = connection.execute(_DIMS, [TABLE]).fetchone()
    return row[0] if row else None
