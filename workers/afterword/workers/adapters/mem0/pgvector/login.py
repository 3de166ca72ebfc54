"""The first look at PostgreSQL: whether it lets us in, which a pool does not tell."""

from __future__ import annotations

import psycopg

from afterword.shared.errors import Misconfigured
from afterword.workers.adapters.mem0.pgvector.store import CONNECT_S

#: How a server says no before there is a session; such an error has no code of its own.
_REFUSALS = ("authentication failed", "no password supplied", "pg_hba.conf", "does not exist")


def check_login(url: str) -> None:
    """Log in once; raise `Misconfigured` if the address makes no sense or we are refused.

    A server that does not answer is no error: it may come back.
    """
    try:
        psycopg.connect(url, connect_timeout=CONNECT_S).close()
    except psycopg.ProgrammingError:
        raise Misconfigured("AFTERWORD_POSTGRES_URL", "is no address of PostgreSQL") from None
    except psycopg.OperationalError as error:
        if any(word in str(error) for word in _REFUSALS):
            reason = "the server refuses this user, password or database"
            raise Misconfigured("AFTERWORD_POSTGRES_URL", reason) from None
