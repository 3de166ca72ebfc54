"""Durations as people write them: 90s, 10m, 2h, 3d or 1w; a bare number is seconds."""

from __future__ import annotations

import re

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
