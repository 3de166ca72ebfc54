"""The one clock on the wall; leases and due times never ask it, they live by Redis' own."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the time of day, aware, in UTC."""
    return datetime.now(UTC)


def unix_ns() -> int:
    """Return the time of day in nanoseconds since 1970, as spans have it."""
    return time.time_ns()
