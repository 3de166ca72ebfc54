"""What an error of Anthropic's API means: its class, its code, and how long to wait."""

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
from afterword.workers.adapters.http import (
    Verdict,
    request_id_of,
    retry_after_seconds,
    verdict_of_status,
)

#: By `error.details.error_code`, which tells causes apart that share a status and a type.
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

#: By `error.type`: inside a stream the status is always 200, so only the type tells.
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
    "not_found_error": (NoSuchModel, "model_not_found"),
    "request_too_large": (Rejected, "too_large"),
}

#: By status, for answers without a type, mostly of a proxy: what differs from other providers.
_BY_STATUS: dict[int, Verdict] = {
    409: (Unavailable, "conflict"),
    499: (Unavailable, "provider_timeout"),
}

#: How the message of a 400 about our account begins; the API gives these no code. Only the
#: beginning is compared, because the rest may quote what a user wrote.
_ACCOUNT_EMPTY = ("Your credit balance is too low", "You have reached your specified API usage")


def api_error(status: int, headers: Mapping[str, str], body: object) -> ProviderError:
    """Translate an error of the API, whether it came as a status or as an event in a stream."""
    kind, code = _verdict(status, body)
    wait_s = retry_after_seconds(headers)
    if wait_s is None and kind is RateLimited:
        wait_s = reset_seconds(headers)
    return kind(code, request_id=request_id_of(headers), retry_after_s=wait_s)


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
            return verdict_of_status(status, _BY_STATUS)
