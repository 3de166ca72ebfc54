"""PostgreSQL without mem0: connections, the table of memories, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors, sql
from psycopg_pool import ConnectionPool

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    Misconfigured,
    ProviderError,
    Rejected,
    Unavailable,
)

TABLE = "afterword_memories"

#: Seconds to wait for a connection, and until a silent peer's connection counts as lost.
CONNECT_S = 5
PEER_LOST_S = 10

#: Advisory lock held while the table is checked or created. An arbitrary number.
_LOCK = 0x6166_7465_7277

_COLUMNS = "(id uuid PRIMARY KEY, vector vector({dims}) NOT NULL, payload jsonb NOT NULL)"
_CREATE = (
    "CREATE EXTENSION IF NOT EXISTS vector",
    f"CREATE TABLE IF NOT EXISTS {TABLE} {_COLUMNS}",
    # These find the few rows of one user. A vector index would find the nearest rows of all users
    # first, and then drop most of this user's.
    f"CREATE INDEX IF NOT EXISTS {TABLE}_user ON {TABLE} ((payload->>'user_id'))",
    f"CREATE INDEX IF NOT EXISTS {TABLE}_turn ON {TABLE} ((payload->>'turn_id'))",
)
_DIMS = "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'vector'"

#: How a server's messages refuse a login. Before there is a session, errors have no SQLSTATE.
_LOGIN_REFUSALS = (
    "authentication failed", "no password supplied", "pg_hba.conf", "does not exist",
)  # fmt: skip

#: By SQLSTATE: a whole code wins over its class, the first two characters.
_BY_SQLSTATE: dict[str, tuple[type[ProviderError], str]] = {
    "25006": (Unavailable, "store_read_only"),  # a standby, until it is promoted
    "3D000": (AccessDenied, "store_missing"),
    "42501": (AccessDenied, "store_refused"),
    "08": (Unavailable, "store_unavailable"),
    "22": (Rejected, "not_accepted"),
    "28": (AccessDenied, "store_refused"),
    "3F": (AccessDenied, "store_broken"),
    "40": (Unavailable, "store_busy"),
    "42": (AccessDenied, "store_broken"),
    "53": (Unavailable, "store_full"),
    "55": (Unavailable, "store_busy"),
    "57": (Unavailable, "store_unavailable"),
    "58": (Unavailable, "store_unavailable"),
    "XX": (AccessDenied, "store_broken"),
}


def connection_pool(url: str, connections: int) -> ConnectionPool:
    """Return a pool, not open yet, that checks each connection before it lends it."""
    return ConnectionPool(
        url,
        kwargs={
            "connect_timeout": CONNECT_S,
            "tcp_user_timeout": PEER_LOST_S * 1000,
            "keepalives_idle": PEER_LOST_S,
            "application_name": "afterword",
            "prepare_threshold": None,  # a pooler in between may not support prepared statements
        },
        min_size=1,
        max_size=connections,
        open=False,
        timeout=CONNECT_S,
        reconnect_timeout=CONNECT_S,
        check=ConnectionPool.check_connection,
        name="afterword-memories",
    )


def check_login(url: str) -> None:
    """Log in once; raise `Misconfigured` if the URL is invalid or the server refuses the login.

    A pool only retries such errors and does not report them. A server that does not answer is no
    error here, because it may come back.
    """
    try:
        psycopg.connect(url, connect_timeout=CONNECT_S).close()
    except psycopg.ProgrammingError:
        raise Misconfigured("AFTERWORD_POSTGRES_URL", "is not a PostgreSQL URL") from None
    except psycopg.OperationalError as error:
        if any(refusal in str(error) for refusal in _LOGIN_REFUSALS):
            reason = "the server refuses this user, password or database"
            raise Misconfigured("AFTERWORD_POSTGRES_URL", reason) from None


def ensure_table(connection: psycopg.Connection, dims: int) -> None:
    """Create the table if it is missing; raise `Misconfigured` if its vectors have other `dims`.

    Runs in one transaction under an advisory lock, so any number of processes may call it at once.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        if _table_dims(connection) is None:
            _create_table(connection, dims)
        found = _table_dims(connection)
    if found != dims:
        raise Misconfigured(
            "AFTERWORD_EMBEDDER",
            f"its vectors have {dims} dimensions, those in the table {TABLE} have {found}: "
            "use the embedder that the table was filled with, or another database",
        )


def _create_table(connection: psycopg.Connection, dims: int) -> None:
    try:
        for statement in _CREATE:
            connection.execute(sql.SQL(statement).format(dims=sql.Literal(dims)))
    except errors.ReadOnlySqlTransaction:
        raise
    except (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.UndefinedFile):
        raise Misconfigured(
            "AFTERWORD_POSTGRES_URL",
            "its user cannot create the extension `vector` and a table: install pgvector on the "
            "server, and have an administrator run CREATE EXTENSION vector and GRANT CREATE ON "
            "SCHEMA",
        ) from None


def _table_dims(connection: psycopg.Connection) -> int | None:
    """Return the dimensions of the table's vectors, None if there is no table."""
    row = connection.execute(_DIMS, [TABLE]).fetchone()
    return row[0] if row else None


@contextmanager
def translate_postgres_errors(*, writing: bool) -> Iterator[None]:
    """Replace PostgreSQL's errors, whose messages may quote a memory, with our own.

    If the connection is lost while `writing`, the transaction may have been committed.
    """
    try:
        yield
    except psycopg.Error as error:
        kind, code = _verdict(error)
        lost = isinstance(error, psycopg.OperationalError) and kind is Unavailable
        raise kind(code, unknown_outcome=writing and lost) from None


def _verdict(error: psycopg.Error) -> tuple[type[ProviderError], str]:
    state = error.sqlstate or ""
    found = _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2])
    if found is not None:
        return found
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Unavailable, "store_unavailable"  # no connection, or none in time: no SQLSTATE
    if isinstance(error, psycopg.DataError):
        return Rejected, "not_accepted"
    return BadAnswer, "store_failed"
