"""What a failure of a self-hosted mem0 means to us: whose it is, and what may be said of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from afterword.shared.error_location import error_location
from afterword.shared.errors import (
    AccessDenied,
    AfterwordError,
    BadAnswer,
    ProviderError,
    Rejected,
    Unavailable,
)
from afterword.shared.events import Mem0Failed
from afterword.shared.observer import emit

_SQLITE_AWAY = {
    sqlite3.SQLITE_BUSY: "store_busy",
    sqlite3.SQLITE_LOCKED: "store_busy",
    sqlite3.SQLITE_FULL: "store_full",
    sqlite3.SQLITE_IOERR: "store_unavailable",
    sqlite3.SQLITE_CANTOPEN: "store_unavailable",
    sqlite3.SQLITE_NOMEM: "store_unavailable",
    sqlite3.SQLITE_PERM: "store_unavailable",
    sqlite3.SQLITE_READONLY: "store_unavailable",
}
_SQLITE_BROKEN = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translated() -> Iterator[None]:
    """Turn what mem0 and its store raise into our errors, none of which repeats their text."""
    try:
        yield
    except AfterwordError:
        raise
    except sqlite3.Error as error:
        raise _sqlite(error) from None
    except ValueError as error:  # mem0's and our store's word for what they do not take
        _report(error)
        raise Rejected("not_accepted") from None
    except Exception as error:  # noqa: BLE001 - whatever it is, it is this one call's
        _report(error)
        raise BadAnswer("mem0_failed") from None


def _sqlite(error: sqlite3.Error) -> ProviderError:
    # A transaction that fails leaves nothing behind, so the outcome is always known.
    _report(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte; the rest is detail
    if code in _SQLITE_AWAY:
        return Unavailable(_SQLITE_AWAY[code])
    return AccessDenied("store_broken") if code in _SQLITE_BROKEN else BadAnswer("mem0_failed")


def _report(error: Exception) -> None:
    emit(Mem0Failed, error=type(error).__name__, place=error_location(error, anywhere=True))
