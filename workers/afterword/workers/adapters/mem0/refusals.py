"""What a failed call of mem0's platform means to us: whose it is, and how long to wait."""

from __future__ import annotations

import json

import httpx

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.http import retry_after_seconds

_BY_STATUS: dict[int, tuple[type[ProviderError], str]] = {
    400: (Rejected, "invalid_request"),
    401: (AccessDenied, "key_refused"),
    402: (AccessDenied, "billing"),
    403: (AccessDenied, "not_permitted"),
    404: (AccessDenied, "wrong_address"),
    405: (AccessDenied, "wrong_address"),
    407: (AccessDenied, "proxy_refused"),
    408: (Unavailable, "provider_timeout"),
    409: (Rejected, "conflict"),
    413: (Rejected, "too_large"),
    422: (Rejected, "invalid_request"),
    425: (Unavailable, "too_early"),
    429: (RateLimited, "rate_limited"),
    503: (Unavailable, "overloaded"),
    504: (Unavailable, "provider_timeout"),
    529: (Unavailable, "overloaded"),
}


def refusal(error: Exception) -> ProviderError:
    """Return our error for one that came out of mem0's client or of its answer."""
    for cause in (error, error.__context__):  # mem0's errors drop headers, httpx's have them
        match cause:
            case httpx.HTTPStatusError():
                return _refused(cause.response)
            case httpx.TransportError():
                return Unavailable("unreachable")
            case json.JSONDecodeError():
                return BadAnswer("bad_json")
            case UnicodeEncodeError():
                return Rejected("not_unicode")
            case AttributeError() | KeyError() | TypeError() | ValueError():
                return BadAnswer("unexpected_answer")  # it was read, and is not what it should be
    return BadAnswer(f"unexpected_{type(error).__name__}")


def _refused(response: httpx.Response) -> ProviderError:
    kind, code = _BY_STATUS.get(response.status_code) or _by_class(response.status_code)
    return kind(code, retry_after_s=retry_after_seconds(response.headers))


def _by_class(status: int) -> tuple[type[ProviderError], str]:
    match status // 100:
        case 3:
            return AccessDenied, "wrong_address"  # we follow no redirect: it would carry the key
        case 4:
            return Rejected, f"http_{status}"
        case _:
            return Unavailable, "provider_error"
