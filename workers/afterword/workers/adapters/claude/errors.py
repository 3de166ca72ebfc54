"""What a refusal of Anthropic's API means to us: whose failure it is, and how long to wait."""

from __future__ import annotations

from collections.abc import Mapping

from afterword.shared.errors import (
    AccessDenied,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.claude.rate_limits import reset_seconds
from afterword.workers.adapters.http import retry_after_seconds

Verdict = tuple[type[ProviderError], str]

#: By `error.details.error_code`: causes that status and type hide.
_BY_CODE: dict[str, Verdict] = {
    "enforced_spend_limit_reached": (AccessDenied, "spend_limit"),
    "contract_spend_limit_reached": (AccessDenied, "spend_limit"),
    "linked_organization_spend_limit_reached": (AccessDenied, "spend_limit"),
    "linked_organization_billing_unavailable": (AccessDenied, "billing"),
    "organization_on_hold": (AccessDenied, "organization_on_hold"),
    "organization_type_not_supported": (AccessDenied, "not_permitted"),
    "cmek_key_disabled": (AccessDenied, "encryption_key_disabled"),
    "cmek_key_network_blocked": (AccessDenied, "encryption_key_disabled"),
    "request_body_timeout": (Unavailable, "provider_timeout"),
    "ramp_limit_exceeded": (RateLimited, "ramp_limit"),
}

#: By `error.type`; inside a stream nothing else tells, its status is always 200.
_BY_TYPE: dict[str, Verdict] = {
    "overloaded_error": (Unavailable, "overloaded"),
    "api_error": (Unavailable, "provider_error"),
    "timeout_error": (Unavailable, "provider_timeout"),
    "conflict_error": (Unavailable, "conflict"),
    "rate_limit_error": (RateLimited, "rate_limited"),
    "authentication_error": (AccessDenied, "key_refused"),
    "permission_error": (AccessDenied, "not_permitted"),
    "billing_error": (AccessDenied, "billing"),
    "invalid_request_error": (Rejected, "invalid_request"),
    "not_found_error": (NoSuchModel, "not_found"),
    "request_too_large": (Rejected, "too_large"),
}

#: By status, for answers that a proxy gives in the API's place.
_BY_STATUS: dict[int, Verdict] = {
    400: (Rejected, "invalid_request"),
    401: (AccessDenied, "key_refused"),
    402: (AccessDenied, "billing"),
    403: (AccessDenied, "not_permitted"),
    404: (AccessDenied, "wrong_address"),  # the API itself says `not_found_error`
    405: (AccessDenied, "wrong_address"),
    407: (AccessDenied, "proxy_refused"),
    408: (Unavailable, "provider_timeout"),
    409: (Unavailable, "conflict"),
    413: (Rejected, "too_large"),
    422: (Rejected, "invalid_request"),
    429: (RateLimited, "rate_limited"),
    499: (Unavailable, "provider_timeout"),
    503: (Unavailable, "overloaded"),
    504: (Unavailable, "provider_timeout"),
    529: (Unavailable, "overloaded"),
}

#: How a 400 begins that is about our account; the API gives these no code of their own. Only
#: the beginning counts, since a message may go on to repeat what a user wrote.
_ACCOUNT_EMPTY = ("Your credit balance is too low", "You have reached your specified API usage")


def refusal(status: int, headers: Mapping[str, str], body: object) -> ProviderError:
    """Return our error for an error of the API, be it a status or an event inside a stream."""
    kind, code = _verdict(status, body)
    wait_s = retry_after_seconds(headers)
    if wait_s is None and kind is RateLimited:
        wait_s = reset_seconds(headers)
    return kind(code, request_id=headers.get("request-id"), retry_after_s=wait_s)


def _verdict(status: int, body: object) -> Verdict:
    match body:
        case {"error": {"details": {"error_code": str(cause)}}} if cause in _BY_CODE:
            return _BY_CODE[cause]
        case {"error": {"type": "invalid_request_error", "message": str(message)}} if (
            message.startswith(_ACCOUNT_EMPTY)
        ):
            return AccessDenied, "billing"
        case {"error": {"type": str(name)}} if name in _BY_TYPE:
            return _BY_TYPE[name]
        case _:
            return _BY_STATUS.get(status) or _by_class(status)


def _by_class(status: int) -> Verdict:
    match status // 100:
        case 3:
            return AccessDenied, "wrong_address"  # we follow no redirect: it would carry the key
        case 4:
            return Rejected, f"http_{status}"
        case _:
            return Unavailable, "provider_error"
