"""Days, weeks, months and years as seen from a day: tomorrow, next week, the last Friday."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

_DAYS_OF_WEEK, _MONTHS_OF_YEAR = 7, 12

#: The farthest number of units: "in 500 years" is no date.
_FARTHEST = {"d": 420, "w": 60, "m": 36, "y": 50}


@dataclass(frozen=True, slots=True)
class Span:
    """A time that begins on a day, and its unit: `d` a day, `w` a week, `m` a month, `y` a year."""

    first: date
    unit: str

    @property
    def last(self) -> date:
        """The last day of it."""
        if self.unit == "d":
            return self.first
        after = moved(self.first, 1, self.unit)
        return after.first - timedelta(days=1) if after else self.first


def moved(today: date, count: int, unit: str) -> Span | None:
    """Return so many days, weeks, months or years from today, as precisely as its unit is."""
    if abs(count) > _FARTHEST[unit]:
        return None
    if unit == "d":
        return Span(today + timedelta(days=count), "d")
    if unit == "w":
        monday = today - timedelta(days=today.weekday())
        return Span(monday + timedelta(weeks=count), "w")
    months = today.year * _MONTHS_OF_YEAR + today.month - 1
    months += count * (_MONTHS_OF_YEAR if unit == "y" else 1)
    year, month = divmod(months, _MONTHS_OF_YEAR)
    return Span(date(year, month + 1, 1), unit)


def counted(today: date, count: int, unit: str) -> Span | None:
    """Return in so many units from today: a week is seven days then."""
    return moved(today, *((count * _DAYS_OF_WEEK, "d") if unit == "w" else (count, unit)))


def weekday(today: date, day: int, ahead: int, *, of_week: bool) -> Span:
    """Return the first such day after today, or the last one before; or that of the next week."""
    if of_week:
        monday = today - timedelta(days=today.weekday())
        return Span(monday + timedelta(weeks=ahead, days=day), "d")
    if ahead > 0:
        return Span(today + timedelta(days=(day - today.weekday() - 1) % _DAYS_OF_WEEK + 1), "d")
    return Span(today - timedelta(days=(today.weekday() - day - 1) % _DAYS_OF_WEEK + 1), "d")
