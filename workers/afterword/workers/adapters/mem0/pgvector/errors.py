"""What a failure of PostgreSQL means to us: whose it is, and whether the work was done."""

from __future__ import annotations

import psycopg

from afterword.shared.errors import AccessDenied, BadAnswer, ProviderError, Rejected, Unavailable

#: By SQLSTATE, the longest beginning first: a whole code, else its class.
_BY_STATE: dict[str, tuple[type[ProviderError], str]] = {
    "25006": (Unavailable, "store_read_only"),  # a stand-by, until it is the main one
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


def ours(error: psycopg.Error, *, writing: bool) -> ProviderError:
    """Return our error for one of PostgreSQL's, which may repeat what was to be stored.

    A connection that breaks while it commits leaves open what became of the transaction.
    """
    kind, code = _verdict(error)
    lost = isinstance(error, psycopg.OperationalError) and kind is Unavailable
    return kind(code, unknown_outcome=writing and lost)


def _verdict(error: psycopg.Error) -> tuple[type[ProviderError], str]:
    state = error.sqlstate or ""
    found = _BY_STATE.get(state) or _BY_STATE.get(state[:2])
    if found is not None:
        return found
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return Unavailable, "store_unavailable"  # no server, or none in time: it says no state
    if isinstance(error, psycopg.DataError):
        return Rejected, "not_accepted"
    return BadAnswer, "store_failed"
