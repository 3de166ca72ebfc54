"""How long an HTTP answer asks us to wait, as Claude's API and mem0's platform both say it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long the provider asks us to wait, without a cap; `None` if it does not say.

    A date counts from the answer's own `date`, so that no clock of ours takes part.
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
    except (TypeError, ValueError):
        return None
    return max(0.0, between.total_seconds())
