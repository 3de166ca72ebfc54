"""What a failed HTTP call means, for Claude's API and mem0's platform alike."""

from __future__ import annotations

import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, TypeAlias

from afterword.shared.errors import (
    AccessDenied,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)

#: The class of an error, and its code.
Verdict: TypeAlias = tuple[type[ProviderError], str]

#: Why there is no connection, by the class of the error that it comes from.
_NO_CONNECTION: dict[type[BaseException], Verdict] = {
    ssl.SSLCertVerificationError: (AccessDenied, "untrusted_certificate"),
    ssl.SSLError: (AccessDenied, "no_tls"),
    socket.gaierror: (Unavailable, "no_such_host"),
    ConnectionRefusedError: (Unavailable, "connection_refused"),
}

#: The errors of aiohttp and httpx about a proxy; for them, its refused port is not the provider's.
_OF_A_PROXY = {"ClientProxyConnectionError", "ClientHttpProxyError", "ProxyError"}

_REQUEST_ID = re.compile(r"[\w.:/=+-]{1,128}", re.ASCII)

_BY_STATUS: dict[int, Verdict] = {
    400: (Rejected, "invalid_request"),
    401: (AccessDenied, "key_refused"),
    402: (AccessDenied, "billing"),
    403: (AccessDenied, "not_permitted"),
    404: (AccessDenied, "wrong_address"),
    405: (AccessDenied, "wrong_address"),
    407: (AccessDenied, "proxy_refused"),
    408: (Unavailable, "provider_timeout"),
    413: (Rejected, "too_large"),
    422: (Rejected, "invalid_request"),
    429: (RateLimited, "rate_limited"),
    503: (Unavailable, "overloaded"),
    504: (Unavailable, "provider_timeout"),
    529: (Unavailable, "overloaded"),
}


def verdict_of_status(status: int, special: Mapping[int, Verdict]) -> Verdict:
    """Return what an HTTP status means; `special` holds what one provider means by it."""
    return special.get(status) or _BY_STATUS.get(status) or _verdict_of_class(status)


def _verdict_of_class(status: int) -> Verdict:
    match status // 100:
        case 3:
            return AccessDenied, "wrong_address"  # redirects are not followed: they'd get the key
        case 4:
            return Rejected, f"http_{status}"
        case _:
            return Unavailable, "provider_error"


def verdict_of_connection(error: BaseException) -> Verdict:
    """Return why a call got no answer; no text of an error is used, it may hold a URL."""
    causes = list(_causes(error))
    if any(type(each).__name__ in _OF_A_PROXY for each in causes):
        refused = any(
            getattr(each, "status", 0) == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
            for each in causes
        )
        return AccessDenied, "proxy_refused" if refused else "proxy_failed"
    known = (verdict for each in causes if (verdict := _verdict_of_cause(each)))
    return next(known, (Unavailable, "unreachable"))


def _verdict_of_cause(error: BaseException) -> Verdict | None:
    found = (verdict for kind, verdict in _NO_CONNECTION.items() if isinstance(error, kind))
    return next(found, None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it comes from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """Return the provider's id of a call; `None` for what is none, since it goes into logs."""
    found = headers.get("request-id", "")
    return found if _REQUEST_ID.fullmatch(found) else None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks us to wait, uncapped; `None` if it does not say.

    A date is compared with the response's own `date` header, so our clock plays no part.
    """
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    if (seconds := _number(headers.get("retry-after"))) is not None:
        return seconds
    return _seconds_between(headers.get("date"), headers.get("retry-after"))


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _seconds_between(start: str | None, end: str | None) -> float | None:
    try:
        between = parsedate_to_datetime(end or "") - parsedate_to_datetime(start or "")
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, between.total_seconds())
