"""Writes beside "tomorrow" and "last week" the date that they mean, as long as anybody knows it.

A message is read months later, when "tomorrow" says nothing. Its words stay as they are; the date
follows in brackets, in the language of the phrase: «I have an exam tomorrow [2 December 2026]».
What may mean something else stays alone: a name, a quotation, a long text that was pasted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from typing import Any

from afterword.workers.rules.languages import VOWEL_SIGNS, languages_of, script_of, scripts_in
from afterword.workers.rules.lexicons import lexicons

#: Who writes more has pasted something: its "yesterday" is not that of the user.
LONGEST_MESSAGE = 600

_QUOTATION = re.compile(
    '\u201c[^\u201d]*\u201d|"[^"]*"|\u00ab[^\u00bb]*\u00bb|\u201e[^\u201c\u201d]*[\u201c\u201d]'
    "|\u300c[^\u300d]*\u300d|`[^`]*`"
)
_SENTENCE_START = re.compile('(?:^|[.!?\u2026:;\n\u00bf\u00a1("-])\\s*$')
_SENTENCE_END = re.compile("[.!?\u3002\uff01\uff1f\u0964\u061f\n]")

#: A date as it is written here, or by the user.
_DATE = re.compile(" ?\\[[^\\[\\]\n]*\\d{4}[^\\[\\]\n]*\\]")

_NUMERALS = "0-9\u0660-\u0669\u0966-\u096f\uff10-\uff19"

#: Of one width: it also stands in what must not come before a phrase.
_BLANK = "[ \u00a0]"

_DAYS_OF_WEEK, _MONTHS_OF_YEAR = 7, 12

#: Years of four digits, and none whose future no calendar has.
_YEARS = range(1100, 9900)

#: The farthest number of units: "in 500 years" is no date.
_FARTHEST = {"d": 420, "w": 60, "m": 36, "y": 50}


@dataclass(frozen=True, slots=True)
class _Span:
    """From when to when a phrase means, and how precisely: to the day, week, month or year."""

    first: date
    unit: str


@dataclass(frozen=True, slots=True)
class _Found:
    start: int
    end: int
    span: _Span
    shown: str


_ESCAPED_OR_NOT = re.compile(r"(\\.)|.", re.DOTALL)

#: Letters that a pattern takes for others when it ignores case, beside their other case.
_ALIKE = str.maketrans("\u0130\u0131\u017f", "iis")
_NEVER = "(?!)"

#: A pattern, and what a match of it means on a day; None if it means nothing that is known.
_Rule = tuple[re.Pattern[str], Callable[[re.Match[str], date], _Span | None]]


def with_dates(text: str, today: date) -> str:
    """Return a text with the dates that its words mean on the day on which it was written."""
    if len(text) > LONGEST_MESSAGE or today.year not in _YEARS:
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
    return [(one.span.first, _last_day(one.span)) for one in _agreed(_found_in(text, today))]


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
    for pattern, meaning in _rules(language):
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


def _shown(span: _Span, lexicon: dict[str, Any]) -> str:
    if span.unit == "w":
        last = span.first + timedelta(days=_DAYS_OF_WEEK - 1)
        return f"{_day(span.first, lexicon)} \u2013 {_day(last, lexicon)}"
    if span.unit == "y":
        return str(lexicon.get("year", "{year}").format(year=span.first.year))
    return _day(span.first, lexicon, form="date" if span.unit == "d" else "month")


def _day(day: date, lexicon: dict[str, Any], form: str = "date") -> str:
    month = lexicon["months"].split()[day.month - 1]
    template: str = lexicon[form]
    return template.format(day=day.day, month=month, year=day.year)


def _last_day(span: _Span) -> date:
    if span.unit == "d":
        return span.first
    after = _moved(span.first, 1, span.unit)
    return after.first - timedelta(days=1) if after else span.first


def _moved(today: date, count: int, unit: str) -> _Span | None:
    """Return so many days, weeks, months or years from today, as precisely as its unit is."""
    if abs(count) > _FARTHEST[unit]:
        return None
    if unit == "d":
        return _Span(today + timedelta(days=count), "d")
    if unit == "w":
        monday = today - timedelta(days=today.weekday())
        return _Span(monday + timedelta(weeks=count), "w")
    months = today.year * _MONTHS_OF_YEAR + today.month - 1
    months += count * (_MONTHS_OF_YEAR if unit == "y" else 1)
    year, month = divmod(months, _MONTHS_OF_YEAR)
    return _Span(date(year, month + 1, 1), unit)


def _counted(today: date, count: int, unit: str) -> _Span | None:
    """Return in so many units from today: a week is seven days then."""
    return _moved(today, *((count * _DAYS_OF_WEEK, "d") if unit == "w" else (count, unit)))


def _weekday(today: date, day: int, ahead: int, *, of_week: bool) -> _Span:
    """Return the first such day after today, or the last one before; or that of the next week."""
    if of_week:
        monday = today - timedelta(days=today.weekday())
        return _Span(monday + timedelta(weeks=ahead, days=day), "d")
    if ahead > 0:
        return _Span(today + timedelta(days=(day - today.weekday() - 1) % _DAYS_OF_WEEK + 1), "d")
    return _Span(today - timedelta(days=(today.weekday() - day - 1) % _DAYS_OF_WEEK + 1), "d")


@cache
def languages_with_dates() -> tuple[str, ...]:
    """Return the languages whose dates are known."""
    return tuple(name for name, lexicon in lexicons().items() if "dates" in lexicon)


def languages_found(text: str, phrases_of: Callable[[str], Iterable[str]]) -> list[str]:
    """Return the languages of which a text has any of these phrases, and perhaps others.

    That is twenty times as fast as looking for each phrase. `phrases_of` returns those of a
    language as patterns, always the same.
    """
    scripts = scripts_in(text)
    lower = _lower(text)
    return [
        language
        for language in languages_with_dates()
        if script_of(language) in scripts and _any_of(language, phrases_of).search(lower)
    ]


@cache
def _any_of(language: str, phrases_of: Callable[[str], Iterable[str]]) -> re.Pattern[str]:
    """Return a pattern that finds any phrase of a language in a text in lower case.

    It ignores no case: then each phrase is ruled out by its first letter.
    """
    either = "|".join(phrases_of(language))
    unnamed = re.sub(r"\?P<\w+>", "?:", either).replace("(?-i:", "(?:")
    spelled = _ESCAPED_OR_NOT.sub(lambda found: found[1] or _lower(found[0]), unnamed)
    return pattern_of(spelled, lexicon_of(language), flags=re.NOFLAG)


def _lower(text: str) -> str:
    """Return a text in lower case, as patterns that ignore case take letters for the same."""
    return text.lower() if text.isascii() else text.translate(_ALIKE).lower()


def lexicon_of(language: str) -> dict[str, Any]:
    """Return what is known of dates in a language."""
    found: dict[str, Any] = lexicons()[language]["dates"]
    return found


@cache
def _rules(language: str) -> tuple[_Rule, ...]:
    lexicon = lexicon_of(language)
    rules: list[_Rule] = []
    for offset, phrase in _fixed_phrases(lexicon):
        rules.append((pattern_of(phrase, lexicon), _fixed(int(offset[:-1]), offset[-1])))
    for key, ahead in (("ahead", 1), ("ago", -1)):
        if key in lexicon:
            rules += _counting(lexicon, key, ahead)
    for key, ahead in (("coming", 1), ("past", -1)):
        if key in lexicon:
            for day, name in enumerate(lexicon["weekdays"].split()):
                pattern = pattern_of(lexicon[key].replace("WEEKDAY", f"(?:{name})"), lexicon)
                rules.append((pattern, _on_weekday(day, ahead, bool(lexicon.get("of_week")))))
    return tuple(rules)


def _fixed_phrases(lexicon: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for line in lexicon["phrases"].strip().splitlines():
        offset, _, phrase = line.partition(" ")
        yield offset, phrase


def relative_phrases(language: str) -> Iterator[str]:
    """Yield patterns of all that means a date as seen from a day."""
    lexicon = lexicon_of(language)
    for _, phrase in _fixed_phrases(lexicon):
        yield phrase
    for key in ("ahead", "ago", "coming", "past"):
        phrase = lexicon.get(key, _NEVER).replace("NUMBER", f"(?:{_spelled_numbers(lexicon)})")
        for place, names in (("UNIT", "units"), ("WEEKDAY", "weekdays")):
            phrase = phrase.replace(place, f"(?:{'|'.join(lexicon.get(names, '').split())})")
        yield phrase


def _spelled_numbers(lexicon: dict[str, Any]) -> str:
    return "|".join([f"(?<![{_NUMERALS}])[{_NUMERALS}]{{1,3}}", *lexicon["numbers"].split()])


def _fixed(count: int, unit: str) -> Callable[[re.Match[str], date], _Span | None]:
    return lambda _, today: _moved(today, count, unit)


def _on_weekday(day: int, ahead: int, of_week: bool) -> Callable[[re.Match[str], date], _Span]:  # noqa: FBT001 - not called by name anywhere else
    return lambda _, today: _weekday(today, day, ahead, of_week=of_week)


def _counting(lexicon: dict[str, Any], key: str, ahead: int) -> Iterator[_Rule]:
    numbers = lexicon["numbers"].split()
    lasting = re.compile(lexicon["lasting"], re.IGNORECASE) if "lasting" in lexicon else None

    def meaning(unit: str) -> Callable[[re.Match[str], date], _Span | None]:
        def mean(match: re.Match[str], today: date) -> _Span | None:
            if ahead > 0 and lasting and lasting.search(_sentence(match)):
                return None
            said = match["number"]
            count = int(said) if said.isdecimal() else _number(said, numbers)
            return _counted(today, ahead * count, unit) if count else None

        return mean

    for unit, names in zip("dwmy", lexicon["units"].split(), strict=True):
        text = lexicon[key].replace("NUMBER", f"(?P<number>{_spelled_numbers(lexicon)})")
        yield pattern_of(text.replace("UNIT", f"(?:{names})"), lexicon), meaning(unit)


def _number(said: str, numbers: list[str]) -> int:
    places = (
        at for at, one in enumerate(numbers, 1) if re.fullmatch(one, said, flags=re.IGNORECASE)
    )
    return next(places, 0)


def _sentence(match: re.Match[str]) -> str:
    """Return the sentence in which a phrase stands, without the phrase."""
    text = match.string
    starts = [end.end() for end in _SENTENCE_END.finditer(text, 0, match.start())]
    after = _SENTENCE_END.search(text, match.end())
    ends = after.start() if after else len(text)
    return f"{text[starts[-1] if starts else 0 : match.start()]} {text[match.end() : ends]}"


def pattern_of(
    phrase: str, lexicon: dict[str, Any], flags: re.RegexFlag = re.IGNORECASE
) -> re.Pattern[str]:
    """Return a pattern of a phrase that stands alone, in the spelling of its language."""
    phrase = phrase.replace(" ", _BLANK)
    inside = f"(?P<phrase>{phrase})"
    if not lexicon.get("spaced", True):
        return re.compile(inside)
    prefix = lexicon.get("prefix", "")
    pattern = f"(?<![\\w{VOWEL_SIGNS}'\u2019-]){prefix}{inside}(?![\\w{VOWEL_SIGNS}-])"
    return re.compile(pattern, flags)
