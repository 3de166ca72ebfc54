"""Times as people write them: durations (90s, 10m, 2h, 3d, 1w, bare seconds), points in time."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from afterword.shared.clock import utc_now

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")
_LONGEST_S = 100 * 365 * 86_400.0


def read_seconds(text: str) -> float | None:
    """Return a duration in seconds, None if the text is none."""
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        return None
    seconds = float(found[1]) * _UNITS[found[2]]
    return seconds if seconds <= _LONGEST_S else None


def read_time(text: str) -> datetime | None:
    """Return a point in time with its time zone, None if the text is none.

    It is in ISO 8601, in UTC unless it has an offset, or a duration before now.
    """
    ago = read_seconds(text)
    if ago is not None and not text.isdigit():  # 20261122 is a date of ISO 8601
        return utc_now() - timedelta(seconds=ago)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
