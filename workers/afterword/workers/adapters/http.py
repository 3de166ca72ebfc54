"""What an HTTP error means, for Claude's API and mem0's platform alike."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
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
