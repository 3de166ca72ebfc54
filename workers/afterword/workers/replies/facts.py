"""One remembered fact as it stands in a prompt: its text, then its origin in angle brackets.

A user's text must not pass for anything else, and must otherwise arrive as it was written. So
exactly three things are taken from it: angle brackets, in every spelling; characters that show
nothing and shape nothing, with which text can be hidden; and the beginning of a line, since every
line but the first is indented. Thus no text can write an origin, another fact, or the end of the
block.
"""

from __future__ import annotations

import html
import re
import unicodedata
from datetime import datetime
from typing import NewType

from afterword.workers.rules.excerpts import best_window, both_ends, words_of
from afterword.workers.rules.visible_text import visible

#: A text as `quoted` returns it: it may stand in a prompt.
Quoted = NewType("Quoted", str)

LONGEST_FACT = 1000
_CUT = "…"

#: So many times as much as may be shown of a text is looked at, so that a long one that shows
#: little costs little.
_MOST_READ = 4

_WHOLE = slice(0, None)

#: What may be part of a bracket in a text of ASCII.
_OF_BRACKETS = frozenset("<>&")

#: So much of a message is compared with a long text: half of it at each end.
_MOST_COMPARED = 1000

#: Characters of a turn's id in an origin: ids are random, so the last ones tell turns apart.
_SHORT_ID = 8
_NOT_OF_AN_ID = re.compile(r"[^0-9A-Za-z_-]")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

#: Replaces every character that Unicode normalisation turns into an angle bracket.
_NO_BRACKETS = str.maketrans(
    dict.fromkeys("<\ufe64\uff1c\u226e", "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}")
    | dict.fromkeys(">\ufe65\uff1e\u226f", "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}")
)

#: An ampersand that may begin an entity; in a link, one begins a parameter: `&lt=5`, `&region=eu`.
_ENTITY = re.compile(r"[&\ufe60\uff06](?![A-Za-z][\w.-]*=)")

#: As often an entity may be written as an entity: `&amp;amp;lt;`.
_DEEPEST = 8


def fact_line(at: datetime | None, turn_id: str | None, text: Quoted, times_said: int = 1) -> str:
    """Return a fact as an entry of the block, with the day and the turn it comes from if known.

    If it was said several times, it says so.
    """
    origin = []
    if at:
        origin.append(f"{at.day:02} {_MONTHS[at.month - 1]} {at.year}")
    if turn_id:
        origin.append(f"turn {_NOT_OF_AN_ID.sub('', turn_id[-_SHORT_ID:])}")
    if times_said > 1:
        origin.append(f"said {times_said} times")
    indented = text.replace("\n", "\n  ")
    return f"- {indented} <{', '.join(origin)}>" if origin else f"- {indented}"


def quoted(text: str, about: str = "", longest: int = LONGEST_FACT) -> Quoted:
    """Return a text that shows what it holds and holds no angle bracket, not even as an entity.

    Of a text of more than `longest` characters, it is the part with most words of what the text is
    quoted about, else its beginning; a mark stands where something was cut off.
    """
    if len(text) <= longest and _is_plain(text):
        return Quoted(text.rstrip())
    is_read_whole = len(text) <= _MOST_READ * longest
    read = _WHOLE if is_read_whole else _window(text, about, _MOST_READ * longest)
    seen = visible(text[read]).translate(_NO_BRACKETS)
    safe = _without_entities(seen).strip("\n").rstrip()
    if is_read_whole and len(safe) <= longest:
        return Quoted(safe)
    shown = _window(safe, about, longest - len(_CUT))
    if read.start or shown.start:
        shown = _window(safe, about, longest - 2 * len(_CUT))
    part = visible(safe[shown]).strip("\n").rstrip()
    before = _CUT if read.start or shown.start else ""
    ends = shown.stop == len(safe) and (is_read_whole or read.stop == len(text))
    after = "" if ends else _CUT
    return Quoted(f"{before}{part}{after}" if part else "")


def _is_plain(text: str) -> bool:
    """Return whether nothing of a text is hidden, and none of it could be part of a bracket."""
    return text.isascii() and text.isprintable() and _OF_BRACKETS.isdisjoint(text)


def _window(text: str, about: str, longest: int) -> slice:
    return best_window(text, words_of(" ".join(both_ends(about, _MOST_COMPARED))), longest)


def _without_entities(text: str) -> str:
    """Break up the entities of a text that spells a bracket in them: `&lt;`, `&amp;lt;`."""
    if not _ENTITY.search(text):
        return text
    read = text
    for _ in range(_DEEPEST):
        before, read = read, _read(read)
        if "<" in read or ">" in read:
            break
        if read == before:
            return text
    return _ENTITY.sub("& ", text)


def _read(text: str) -> str:
    """Read the entities of a text as forgivingly as a reader might, also without a semicolon."""
    first, *others = _ENTITY.split(unicodedata.normalize("NFKD", text))
    pieces = [first]
    for other in others:
        entity, link, rest = other.partition("&")
        pieces.append(html.unescape(f"&{entity}") + link + rest)
    return "".join(pieces)
