"""PostgreSQL without mem0: connections, the table of memories, and what its errors mean."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
from psycopg import errors, sql
from psycopg_pool import ConnectionPool, PoolTimeout

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

Verdict: TypeAlias = tuple[type[ProviderError], str]

#: Why there is no session, by the first of these words in the message. It has no SQLSTATE.
_BY_MESSAGE: tuple[tuple[str, Verdict], ...] = (
    ("authentication failed", (AccessDenied, "store_refused")),
    ("no password supplied", (AccessDenied, "store_refused")),
    ("no encryption", (AccessDenied, "store_wants_tls")),
    ("pg_hba.conf", (AccessDenied, "store_refused")),
    ("does not support SSL", (AccessDenied, "no_tls")),
    ("certificate", (AccessDenied, "untrusted_certificate")),
    ("does not exist", (AccessDenied, "store_missing")),
    ("onnection refused", (Unavailable, "connection_refused")),
    ("resolve host", (Unavailable, "no_such_host")),
    ("could not translate host name", (Unavailable, "no_such_host")),
    ("too many clients", (Unavailable, "store_full")),
    ("connection slots", (Unavailable, "store_full")),
)

#: The same in words, where a worker that starts can say them.
_REASONS = {
    "store_refused": "the server refuses this user or password",
    "store_wants_tls": "the server takes no connection without TLS: remove sslmode=disable",
    "store_missing": "the server has no such database or user",
    "no_tls": "the server speaks no TLS, which its sslmode asks for",
    "untrusted_certificate": "the certificate of the server is not trusted, or the file that "
    "sslrootcert names is missing",
}

#: By SQLSTATE: a whole code wins over its class, the first two characters.
_BY_SQLSTATE: dict[str, Verdict] = {
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


class NotingPool(ConnectionPool):
    """A pool that remembers why it has no connection: an error only says that there was none."""

    def __init__(self, url: str, **options: Any) -> None:
        self.failure: Verdict | None = None

        class Connection(psycopg.Connection[Any]):
            @classmethod
            def connect(cls, *args: Any, **kwargs: Any) -> Any:
                try:
                    connection = super().connect(*args, **kwargs)
                except psycopg.OperationalError as error:
                    self.failure = verdict_of_login(error)
                    raise
                self.failure = None
                return connection

        super().__init__(url, connection_class=Connection, **options)


def connection_pool(url: str, connections: int) -> NotingPool:
    """Return a pool, not open yet, that checks each connection before it lends it."""
    return NotingPool(
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
    """Log in once; raise `Misconfigured` if the URL is invalid or no retry can help.

    A pool only retries such errors and does not report them. A server that does not answer is
    `Unavailable`, because it may come back.
    """
    failure = _login_failure(url)  # raised here: what libpq says must not become its context
    if failure is not None:
        raise failure


def _login_failure(url: str) -> Misconfigured | ProviderError | None:
    try:
        psycopg.connect(url, connect_timeout=CONNECT_S).close()
    except psycopg.ProgrammingError:
        return Misconfigured("AFTERWORD_POSTGRES_URL", "is not a PostgreSQL URL")
    except psycopg.OperationalError as error:
        kind, code = verdict_of_login(error)
        reason = _REASONS.get(code)
        return Misconfigured("AFTERWORD_POSTGRES_URL", reason) if reason else kind(code)
    return None


def verdict_of_login(error: psycopg.OperationalError) -> Verdict:
    """Return why the server gave no session."""
    said = str(error)
    unknown: Verdict = (Unavailable, "store_unavailable")
    return next((verdict for words, verdict in _BY_MESSAGE if words in said), unknown)


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
def translate_postgres_errors(pool: NotingPool, *, writing: bool) -> Iterator[None]:
    """Replace PostgreSQL's errors, whose messages may quote a memory, with our own.

    If the connection is lost while `writing`, the transaction may have been committed.
    """
    try:
        yield
    except psycopg.Error as error:
        kind, code = _verdict(error, pool)
        lost = isinstance(error, psycopg.OperationalError) and kind is Unavailable
        raise kind(code, unknown_outcome=writing and lost) from None


def _verdict(error: psycopg.Error, pool: NotingPool) -> Verdict:
    if isinstance(error, PoolTimeout) and pool.failure is not None:
        return pool.failure
    state = error.sqlstate or ""
    found = _BY_SQLSTATE.get(state) or _BY_SQLSTATE.get(state[:2])
    if found is not None:
        return found
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Unavailable, "store_unavailable"  # no connection, or none in time: no SQLSTATE
    if isinstance(error, psycopg.DataError):
        return Rejected, "not_accepted"
    return BadAnswer, "store_failed"
