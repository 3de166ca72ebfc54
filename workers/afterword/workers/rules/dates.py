"""Writes beside "tomorrow" and "last week" the date that they mean, as long as anybody knows it.

A message is read months later, when "tomorrow" says nothing. Its words stay as they are; the date
follows in brackets, in the language of the phrase: «I have an exam tomorrow [2 December 2026]».
What may mean something else stays alone: a name, a quotation, a long text that was pasted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from afterword.workers.rules.calendar_spans import Span
from afterword.workers.rules.date_patterns import languages_found, lexicon_of
from afterword.workers.rules.languages import languages_of
from afterword.workers.rules.relative_dates import relative_phrases, rules_of

#: Who writes more has pasted something: its "yesterday" is not that of the user.
LONGEST_TYPED = 600

_QUOTATION = re.compile(
    '\u201c[^\u201d]*\u201d|"[^"]*"|\u00ab[^\u00bb]*\u00bb|\u201e[^\u201c\u201d]*[\u201c\u201d]'
    "|\u300c[^\u300d]*\u300d|`[^`]*`"
)
_SENTENCE_START = re.compile('(?:^|[.!?\u2026:;\n\u00bf\u00a1("-])\\s*$')

#: A date as it is written here, or by the user.
_DATE = re.compile(" ?\\[[^\\[\\]\n]*\\d{4}[^\\[\\]\n]*\\]")

#: Years of four digits, and none whose future no calendar has.
_YEARS = range(1100, 9900)


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    span: Span
    shown: str


def with_dates(text: str, today: date) -> str:
    """Return a text with the dates that its words mean on the day on which it was written."""
    if len(text) > LONGEST_TYPED or today.year not in _YEARS:
        return text
    quoted = [found.span() for found in _QUOTATION.finditer(text)]
    found = [
        one
        for one in _found_in(text, today)
        if not any(start < one.end and one.start < end for start, end in quoted)
    ]
    for one in reversed(list(_agreed(found))):
        if not _DATE.match(text, one.end):
            text = f"{text[: one.end]}{one.shown}{text[one.end :]}"
    return text


def without_dates(text: str) -> str:
    """Return a text without the dates in brackets that it has."""
    return _DATE.sub("", text) if "[" in text else text


def spans_in(text: str, today: date) -> list[tuple[date, date]]:
    """Return the first and the last day of each time that is named as seen from today."""
    return [(one.span.first, one.span.last) for one in _agreed(_found_in(text, today))]


def _agreed(found: list[_Found]) -> Iterator[_Found]:
    """Yield the longest phrases that do not overlap, unless languages read one differently."""
    end = 0
    for one in sorted(found, key=lambda each: (each.start, -each.end)):
        same = [each for each in found if (each.start, each.end) == (one.start, one.end)]
        if one.start >= end:
            end = one.end
            if len({each.span for each in same}) == 1:
                yield one


def _found_in(text: str, today: date) -> list[_Found]:
    languages = languages_found(text, relative_phrases)
    likely = languages_of(text) if languages else ()
    return [
        one
        for language in languages
        for one in _in_language(text, language, today, sure=language in likely)
    ]


def _in_language(text: str, language: str, today: date, *, sure: bool) -> Iterator[_Found]:
    lexicon = lexicon_of(language)
    for pattern, meaning in rules_of(language):
        for match in pattern.finditer(text):
            if not sure and match["phrase"].casefold() in lexicon.get("mistakable", "").split():
                continue
            if _is_name(text, match):
                continue
            span = meaning(match, today)
            if span is not None:
                shown = f"{lexicon.get('before', ' ')}[{_shown(span, lexicon)}]"
                yield _Found(match.start(), match.end(), span, shown)


def _is_name(text: str, match: re.Match[str]) -> bool:
    """Return whether a phrase has a capital inside a sentence: «the song Yesterday»."""
    return text[match.start()].isupper() and not _SENTENCE_START.search(text, 0, match.start())


def _shown(span: Span, lexicon: dict[str, Any]) -> str:
    if span.unit == "w":
        return f"{_day(span.first, lexicon)} \u2013 {_day(span.last, lexicon)}"
    if span.unit == "y":
        return str(lexicon.get("year", "{year}").format(year=span.first.year))
    return _day(span.first, lexicon, form="date" if span.unit == "d" else "month")


def _day(day: date, lexicon: dict[str, Any], form: str = "date") -> str:
    month = lexicon["months"].split()[day.month - 1]
    template: str = lexicon[form]
    return template.format(day=day.day, month=month, year=day.year)
