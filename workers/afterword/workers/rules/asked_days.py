"""Which days a question is about: «What did I say on 3 May?», «Where was I last week?».

A day is asked for by its date or from the day on which it is asked. What memories say is another
matter: the dates in them are found by their words.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from datetime import date
from functools import cache

from afterword.workers.rules.date_patterns import languages_found, lexicon_of, pattern_of
from afterword.workers.rules.dates import LONGEST_TYPED, spans_in

#: The first and the last day of a time.
Days = tuple[date, date]

#: A date without a year is one of so many, of this year and those before.
_YEARS_BACK = 10

_ISO = re.compile(r"(?<![\d-])(?P<year>[12]\d{3})-(?P<number>\d{1,2})-(?P<day>\d{1,2})(?![\d-])")
_DOTTED = re.compile(r"(?<![\d.])(?P<day>\d{1,2})\. ?(?P<number>\d{1,2})\. ?(?P<year>[12]\d{3})")
_DIGIT = re.compile(r"\d")
_DAY, _YEAR = r"(?<!\d)(?P<day>\d{1,2})", r"(?P<year>[12]\d{3})"


def asked_days(text: str, today: date) -> list[Sequence[Days]]:
    """Return the times that a text names: for each, what it may be, the newest first.

    A date without a year may be of any year until today. Times after today are left out.
    """
    if len(text) > LONGEST_TYPED:
        return []
    named = [_alternatives(match, today) for match in _dates_in(text)]
    named += [[span] for span in spans_in(text, today) if span[0] <= today]
    return [times for times in named if times]


def _dates_in(text: str) -> Iterator[re.Match[str]]:
    """Yield what dates there are, of those that overlap the longest."""
    written = [_ISO, _DOTTED] if _DIGIT.search(text) else []
    spelled = (pattern for one in languages_found(text, date_phrases) for pattern in _patterns(one))
    found = [match for pattern in (*written, *spelled) for match in pattern.finditer(text)]
    end = 0
    for match in sorted(found, key=lambda one: (one.start(), -one.end())):
        if match.start() >= end:
            end = match.end()
            yield match


def _alternatives(match: re.Match[str], today: date) -> list[Days]:
    parts = match.groupdict()
    month = _month(parts)
    year = parts.get("year")
    years = [int(year)] if year else range(today.year, today.year - _YEARS_BACK, -1)
    days = (_days(one, month, int(parts.get("day") or 0)) for one in years)
    return [one for one in days if one and one[0] <= today]


def _month(parts: dict[str, str | None]) -> int:
    number = parts.get("number")
    if number:
        return int(number)
    return next(at for at in range(1, 13) if parts.get(f"m{at}"))


def _days(year: int, month: int, day: int) -> Days | None:
    try:
        first = date(year, month, day or 1)
    except ValueError:
        return None
    last = first if day else first.replace(day=calendar.monthrange(year, month)[1])
    return first, last


@cache
def _patterns(language: str) -> Sequence[re.Pattern[str]]:
    return [pattern_of(phrase, lexicon_of(language)) for phrase in date_phrases(language)]


def date_phrases(language: str) -> Iterator[str]:
    """Yield patterns of days and months in a language."""
    lexicon = lexicon_of(language)
    months = lexicon.get("spelled", lexicon["months"]).split()
    for key, names in (
        ("days", months),
        ("during", lexicon.get("inflected", "").split() or months),
    ):
        spelled = "|".join(f"(?P<m{at}>{name})" for at, name in enumerate(names, 1))
        for line in lexicon[key].strip().splitlines():
            phrase = line.replace("DAY", _DAY).replace("YEAR", _YEAR)
            yield phrase.replace("MONTH", f"(?:{spelled})")
