"""Days in a user's own time zone."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def zone_named(name: str | None) -> tzinfo | None:
    """Return an IANA time zone; None for no name, or for one that this machine does not know."""
    if name is None:
        return None
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):  # a folder, a path, an unknown name
        return None


def is_known_zone(name: str) -> bool:
    """Return whether this machine knows a time zone of that name."""
    return zone_named(name) is not None


def local(at: datetime, timezone: str | None) -> datetime:
    """Return a moment in a time zone; in UTC if there is none, or none that is known."""
    zone = zone_named(timezone) or UTC
    return at if at.tzinfo is zone else at.astimezone(zone)


def today_line(now: datetime, said_at: datetime, timezone: str | None) -> str:
    """Return what day it is in a time zone, and when the message was sent if on another day.

    Empty without a time zone that is known: then nobody can say what day it is for the user.
    """
    if zone_named(timezone) is None:
        return ""
    today, sent = local(now, timezone), local(said_at, timezone)
    line = f"Today is {_day(today)}."
    return line if sent.date() == today.date() else f"{line} The message was sent on {_day(sent)}."


def weekday(at: datetime) -> str:
    """Return the English name of a day of the week, whatever the locale is."""
    return _DAYS[at.weekday()]


def _day(at: datetime) -> str:
    return f"{weekday(at)}, {at.day} {_MONTHS[at.month - 1]} {at.year}"
