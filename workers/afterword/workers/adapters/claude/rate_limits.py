"""What the rate-limit headers of Claude's API say of our budgets, and when they are full again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime

BUDGETS = ("requests", "tokens", "input-tokens", "output-tokens")

#: However far away a reset is, the provider is asked again after this time.
LONGEST_PAUSE_S = 900.0


def pause_seconds(headers: Mapping[str, str]) -> float:
    """Return for how long no budget is left, at most `LONGEST_PAUSE_S`; 0 if all have some."""
    return min(max(_waits(headers, spent=True), default=0.0), LONGEST_PAUSE_S)


def reset_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a refused call waits, without a cap; `None` if the headers do not say.

    It waits for every budget that is used up. If none is, the call was larger than what is left
    of one of them: then for the first that is full again.
    """
    return max(_waits(headers, spent=True), default=None) or min(
        _waits(headers, spent=False), default=None
    )


def _waits(headers: Mapping[str, str], *, spent: bool) -> list[float]:
    """Return how far away the resets are, by the provider's own clock."""
    waits = [
        _seconds_until(headers.get(f"anthropic-ratelimit-{budget}-reset"), headers.get("date"))
        for budget in BUDGETS
        if not spent or headers.get(f"anthropic-ratelimit-{budget}-remaining") == "0"
    ]
    return [wait for wait in waits if wait is not None]


def _seconds_until(reset: str | None, date: str | None) -> float | None:
    try:
        wait: timedelta = datetime.fromisoformat(reset or "") - parsedate_to_datetime(date or "")
    except (TypeError, ValueError):
        return None
    return max(0.0, wait.total_seconds())
