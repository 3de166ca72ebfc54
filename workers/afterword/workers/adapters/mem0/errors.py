"""What mem0's errors mean: which of our error classes, with which code.

None of our errors repeats the message of the original: it may quote a memory.
"""

from __future__ import annotations

import json
import sqlite3
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

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
from afterword.workers.adapters.http import (
    Verdict,
    retry_after_seconds,
    verdict_of_connection,
    verdict_of_status,
)

_SQLITE_UNAVAILABLE = {
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

#: Statuses of mem0's platform that mean something else there than elsewhere.
_PLATFORM_STATUS: dict[int, Verdict] = {
    409: (Rejected, "conflict"),
    425: (Unavailable, "too_early"),
}


#: A request of at least so many bytes may be refused as too large by a server that gives no reason.
LARGE_BYTES = 512 * 1024

#: How much of a refusal is read for its reason.
MAX_SAID = 2000


@contextmanager
def translate_errors() -> Iterator[None]:
    """Replace what mem0's open-source class and its store raise with our errors, and report it."""
    try:
        yield
    except AfterwordError:
        raise
    except sqlite3.Error as error:
        raise _sqlite_error(error) from None
    except ValueError as error:  # what mem0 and our store raise for input they do not accept
        _report(error)
        raise Rejected("not_accepted") from None
    except Exception as error:  # noqa: BLE001 - no error of mem0 may pass
        _report(error)
        raise BadAnswer("mem0_failed") from None


def platform_error(error: Exception) -> ProviderError:
    """Return our error for one of the platform's client, or of reading the platform's answer.

    Whoever gives answers that are not the API's is out, whatever was asked: a page that asks to
    log in, for example.
    """
    for cause in (error, error.__context__):  # mem0's own errors drop the headers, httpx's do not
        match cause:
            case httpx.HTTPStatusError():
                return _status_error(cause.response)
            case httpx.TransportError() | ssl.SSLError():
                kind, code = verdict_of_connection(cause)
                return kind(code)
            case json.JSONDecodeError():
                return Unavailable("bad_json")
            case UnicodeEncodeError():
                return Rejected("not_unicode")
            case AttributeError() | KeyError() | TypeError() | ValueError():
                return Unavailable("unexpected_answer")  # JSON, but not of the expected shape
    return BadAnswer(f"unexpected_{type(error).__name__}")


def _status_error(response: httpx.Response) -> ProviderError:
    kind, code = verdict_of_status(response.status_code, _PLATFORM_STATUS)
    if code == "too_large" and not _is_too_large(response):
        kind, code = AccessDenied, "quota_spent"
    return kind(code, retry_after_s=retry_after_seconds(response.headers))


def _is_too_large(response: httpx.Response) -> bool:
    """Return whether a 413 is about the size of the request.

    mem0's own is about the plan (`MemoryQuotaExceededError` in its package). A proxy's says that
    the request is too large.
    """
    sent = int(response.request.headers.get("content-length", 0))
    said = response.text[:MAX_SAID].lower()
    return "quota" not in said and ("too large" in said or sent > LARGE_BYTES)


def _sqlite_error(error: sqlite3.Error) -> ProviderError:
    # A failed transaction is rolled back, so the outcome is always known.
    _report(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code; the rest is detail
    if code in _SQLITE_UNAVAILABLE:
        return Unavailable(_SQLITE_UNAVAILABLE[code])
    return AccessDenied("store_broken") if code in _SQLITE_BROKEN else BadAnswer("mem0_failed")


def _report(error: Exception) -> None:
    emit(Mem0Failed, error=type(error).__name__, place=error_location(error, anywhere=True))
