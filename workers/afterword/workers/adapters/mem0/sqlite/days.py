"""What memories gain if a question asks for the day on which they were said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta

import numpy as np

from afterword.workers.adapters.mem0.sqlite.ranking import WORD_WEIGHT, Floats, Numbers

#: The first and the last day of a time that a question names, or of each that it may mean, the
#: likeliest first.
Times = Sequence[tuple[date, date]]

#: Returns the times that a question names.
AskedDays = Callable[[str], Sequence[Times]]

#: What was said at that time counts as much as so many words as rare in common; what was said on
#: the day before or after it this share: a day is a user's, in a time zone that is not known here.
_WORDS, _BESIDE = 6.0, 0.25

_DAY = timedelta(days=1)


def no_days(_: str) -> Sequence[Times]:
    """Return no times, whatever is asked."""
    return ()


def day_points(asked: Sequence[Times], times: Numbers) -> Floats:
    """Return what memories said at these times, in seconds, gain by a question that asks for days.

    Of the times that a question may mean, the first one is meant at which anything was said.
    """
    points = np.zeros(len(times), np.float32)
    for alternatives in asked:
        said = (_said(first, last, times) for first, last in alternatives)
        shares = next((found for found in said if found.any()), None)
        if shares is not None:
            count = np.count_nonzero(shares == 1)
            rarity = np.log1p((len(times) - count + 0.5) / (count + 0.5))
            points += shares * np.float32(_WORDS * WORD_WEIGHT * rarity * rarity)
    return points


def _said(first: date, last: date, times: Numbers) -> Floats:
    """Return 1 for what was said from the first to the last day, less beside them, else 0."""
    start, end = _second(first), _second(last + _DAY)
    shares = ((times >= start) & (times < end)).astype(np.float32)
    if first == last and shares.any():
        a_day = int(_DAY.total_seconds())
        beside = (times >= start - a_day) & (times < end + a_day) & (shares == 0)
        shares[beside] = _BESIDE
    return shares


def _second(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp())
