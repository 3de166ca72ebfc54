"""Reads what is typed into forms: bounded, and an error names the field."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from afterword.producer.admin.durations import read_seconds, read_time
from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.ledger.dead_letter_records import (
    DeadLetterFilter,
    DeadLetterKind,
    ReplayPace,
)
from afterword.shared.ledger.order_records import TenantLimits

#: The longest form, in bytes, and most fields in it.
MAX_FORM_BYTES = 65_536
_MAX_FIELDS = 64

#: What a field is called in a form and in a link, by its name in a filter.
FILTER_FIELDS = (
    "ids", "kind", "tenant", "user_id", "fault", "code", "worker_version", "since", "until",
    "older_than_s", "limit",
)  # fmt: skip


async def read_form(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form; raise `HTTPException` if it is too long or none."""
    body = bytearray()
    try:
        async for part in request.stream():
            body += part
            if len(body) > MAX_FORM_BYTES:
                raise HTTPException(413)
    except ClientDisconnect:
        raise HTTPException(400) from None  # nobody hears it
    try:
        return parse_qs(
            body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict"
        )
    except ValueError:
        raise HTTPException(400) from None


def seconds(field: str, text: str) -> float:
    """Return a duration in seconds; raise `InvalidRequest`."""
    found = read_seconds(text)
    if found is None:
        raise InvalidRequest(field, "must be a duration such as 90s, 10m, 2h or 3d")
    return found


def point_in_time(field: str, text: str) -> datetime:
    """Return a point in time: ISO 8601, in UTC unless it says otherwise, or so long ago."""
    moment = read_time(text)
    if moment is None:
        reason = "must be a time such as 2026-11-22T10:00, or 2h for two hours ago"
        raise InvalidRequest(field, reason)
    return moment


def _ids(_field: str, text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _whole(field: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(10**13)):
        raise InvalidRequest(field, "must be a whole number")
    return int(text)


def _number(field: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(field, "must be a number") from None


def _one_of(kind: Any) -> Callable[[str, str], Any]:
    def read(field: str, text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            raise InvalidRequest(field, "must be one of those offered") from None

    return read


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    "ids": _ids,
    "kind": _one_of(DeadLetterKind),
    "fault": _one_of(Fault),
    "since": point_in_time,
    "until": point_in_time,
    "older_than_s": seconds,
    "limit": _whole,
    "rate": _number,
    "canary": _whole,
    "max_dead": _whole,
    "stall_timeout_s": seconds,
}


def _given(asked: Callable[[str], str], names: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields that are not empty, as values."""
    return {
        name: _READERS[name](name, text) if name in _READERS else text
        for name in names
        if (text := asked(name))
    }


def filter_of(asked: Callable[[str], str]) -> DeadLetterFilter:
    """Return the filter of dead letters that a form or a link says; raise `InvalidRequest`."""
    return DeadLetterFilter(**_given(asked, FILTER_FIELDS))


def limits_of(asked: Callable[[str], str]) -> TenantLimits:
    """Return the limits of a tenant that a form says; raise `InvalidRequest`."""
    names = TenantLimits.__dataclass_fields__
    given: dict[str, Any] = {
        name: (_number if name.endswith("_usd") else _whole)(name, text)
        for name in names
        if (text := asked(name))
    }
    return TenantLimits(**given)


def pace_of(asked: Callable[[str], str]) -> ReplayPace:
    """Return the pace that a form says; raise `InvalidRequest`."""
    return ReplayPace(**_given(asked, ("rate", "canary", "max_dead", "stall_timeout_s")))
