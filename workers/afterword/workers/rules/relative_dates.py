"""Phrases that mean a date as seen from a day: "tomorrow", "two weeks ago", "next Friday"."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from functools import cache
from typing import Any

from afterword.workers.rules.calendar_spans import Span, counted, moved, weekday
from afterword.workers.rules.date_patterns import lexicon_of, pattern_of
from afterword.workers.rules.lexicons import NEVER

_SENTENCE_END = re.compile("[.!?\u3002\uff01\uff1f\u0964\u061f\n]")
_NUMERALS = "0-9\u0660-\u0669\u0966-\u096f\uff10-\uff19"

#: A pattern, and what a match of it means on a day; None if it means nothing that is known.
Rule = tuple[re.Pattern[str], Callable[[re.Match[str], date], Span | None]]


@cache
def rules_of(language: str) -> tuple[Rule, ...]:
    """Return the rules of a language, each with a phrase as the group `phrase` of its matches."""
    lexicon = lexicon_of(language)
    rules: list[Rule] = []
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
        phrase = lexicon.get(key, NEVER).replace("NUMBER", f"(?:{_spelled_numbers(lexicon)})")
        for place, names in (("UNIT", "units"), ("WEEKDAY", "weekdays")):
            phrase = phrase.replace(place, f"(?:{'|'.join(lexicon.get(names, '').split())})")
        yield phrase


def _spelled_numbers(lexicon: dict[str, Any]) -> str:
    return "|".join([f"(?<![{_NUMERALS}])[{_NUMERALS}]{{1,3}}", *lexicon["numbers"].split()])


def _fixed(count: int, unit: str) -> Callable[[re.Match[str], date], Span | None]:
    return lambda _, today: moved(today, count, unit)


def _on_weekday(day: int, ahead: int, of_week: bool) -> Callable[[re.Match[str], date], Span]:  # noqa: FBT001 - not called by name anywhere else
    return lambda _, today: weekday(today, day, ahead, of_week=of_week)


def _counting(lexicon: dict[str, Any], key: str, ahead: int) -> Iterator[Rule]:
    numbers = lexicon["numbers"].split()
    lasting = re.compile(lexicon["lasting"], re.IGNORECASE) if "lasting" in lexicon else None

    def meaning(unit: str) -> Callable[[re.Match[str], date], Span | None]:
        def mean(match: re.Match[str], today: date) -> Span | None:
            if ahead > 0 and lasting and lasting.search(_sentence(match)):
                return None
            said = match["number"]
            count = int(said) if said.isdecimal() else _number(said, numbers)
            return counted(today, ahead * count, unit) if count else None

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
