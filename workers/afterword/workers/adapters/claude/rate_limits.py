"""The rate-limit headers of Claude's API: which budgets are used up, and when they reset."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

BUDGETS = ("requests", "tokens", "input-tokens", "output-tokens")

#: The provider is asked again after this time, however far away a reset is.
MAX_PAUSE_S = 900.0


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
    waits = [
        _seconds_until(headers.get(f"anthropic-ratelimit-{budget}-reset"), headers.get("date"))
        for budget in BUDGETS
        if not spent or headers.get(f"anthropic-ratelimit-{budget}-remaining") == "0"
    ]
    return [wait for wait in waits if wait is not None]


def _seconds_until(reset: str | None, date: str | None) -> float | None:
    try:
        wait: timedelta = datetime.fromisoformat(reset or "") - parsedate_to_datetime(date or "")
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0.0, wait.total_seconds())
