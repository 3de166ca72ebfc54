"""The rate-limit headers of Claude's API: what each budget has left, and when it resets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

from afterword.shared.ledger.quota_records import Part, QuotaLevel

_PREFIX = "anthropic-ratelimit-"
BUDGETS = ("requests", "tokens", "input-tokens", "output-tokens")

#: The provider is asked again after this time, however far away a reset is.
MAX_PAUSE_S = 900.0

#: What the headers call the parts of a limit; `tokens` repeats the other two where they are told.
_PARTS: Mapping[str, Part] = {
    "requests": "requests",
    "input-tokens": "input",
    "output-tokens": "output",
}

#: Limits refill within a minute, unless the time of the reset says that it takes clearly longer.
MINUTE_S = 60.0
_CLEARLY_LONGER = 1.5
_LEAST_SPENT = 0.2
_LONGEST_REFILL_S = 86_400.0

#: The API rounds what is left of tokens to thousands.
_ROUNDED_TO = 1000

#: A larger number is none that a limit can be.
_MOST_DIGITS = 12


def quota_levels(headers: Mapping[str, str]) -> tuple[QuotaLevel, ...]:
    """Return what is left of each part of the limit that the headers tell, rather too little."""
    told = _of_limits(headers)
    if not told:
        return ()
    found = [_level(told, budget, part) for budget, part in _PARTS.items()]
    if found[1] is None and found[2] is None:
        found.append(_level(told, "tokens", "tokens"))
    return tuple(level for level in found if level is not None)


def _of_limits(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that tell limits, with the date; nothing if there are none.

    They are read at once: httpx2 goes through all headers for each that is asked for.
    """
    told = {name: value for name, value in headers.items() if name.startswith(_PREFIX)}
    return told and told | {"date": headers.get("date", "")}


def _level(headers: Mapping[str, str], budget: str, part: Part) -> QuotaLevel | None:
    prefix = f"{_PREFIX}{budget}"
    limit, left = _count(headers.get(f"{prefix}-limit")), _count(headers.get(f"{prefix}-remaining"))
    if not limit or left is None:
        return None
    if part != "requests" and left < limit and left % _ROUNDED_TO == 0:
        left = max(0, left - _ROUNDED_TO // 2)
    left = min(left, limit)
    reset_s = _seconds_until(headers.get(f"{prefix}-reset"), headers.get("date"))
    return QuotaLevel(part, limit, left, _refill_s(limit, left, reset_s))


def _count(text: str | None) -> int | None:
    is_number = text is not None and text.isascii() and text.isdigit()
    return int(text) if text and is_number and len(text) <= _MOST_DIGITS else None


def _refill_s(limit: int, left: int, reset_s: float | None) -> float:
    """Return how long the limit takes to refill; the reset is when it is full again."""
    if reset_s is None or limit - left < limit * _LEAST_SPENT:  # times come in whole seconds
        return MINUTE_S
    whole_s = reset_s * limit / (limit - left)
    return min(whole_s, _LONGEST_REFILL_S) if whole_s > _CLEARLY_LONGER * MINUTE_S else MINUTE_S


def pause_seconds(headers: Mapping[str, str]) -> float:
    """Return seconds until every budget has something left, at most `MAX_PAUSE_S`."""
    return min(max(_waits(headers, spent=True), default=0.0), MAX_PAUSE_S)


def reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how many seconds a refused call should wait, uncapped; `None` if unknown.

    It waits until every budget that is used up has reset. If none is used up, the call needed
    more than what is left of one of them; then it waits for the first reset.
    """
    return max(_waits(headers, spent=True), default=None) or min(
        _waits(headers, spent=False), default=None
    )


def _waits(headers: Mapping[str, str], *, spent: bool) -> list[float]:
    """Return seconds until each reset, by the provider's own clock."""
    told = _of_limits(headers)
    waits = [
        _seconds_until(told.get(f"{_PREFIX}{budget}-reset"), told.get("date"))
        for budget in BUDGETS
        if not spent or told.get(f"{_PREFIX}{budget}-remaining") == "0"
    ]
    return [wait for wait in waits if wait is not None]


def _seconds_until(reset: str | None, date: str | None) -> float | None:
    try:
        wait: timedelta = datetime.fromisoformat(reset or "") - parsedate_to_datetime(date or "")
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())
