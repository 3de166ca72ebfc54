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

#: A text as `quoted` returns it: it may stand in a prompt.
Quoted = NewType("Quoted", str)

LONGEST_FACT = 1000
_CUT = "…"

#: So many times as much as may be shown of a text is looked at, so that a long one that shows
#: little costs little.
_MOST_READ = 4

_WHOLE = slice(0, None)

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

_LINE_BREAK = re.compile("\r\n|[\r\v\f\x1c-\x1f\x85\u2028\u2029]")

#: What shows nothing: Unicode's Default_Ignorable_Code_Points, controls, blanks that are no spaces,
#: private characters, halves of pairs, and what is no character.
_INVISIBLE = (
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\0-\x08\x0b-\x1f\x7f-\x9f\ufff9-\ufffb\u2800\U0001d159"
    "\ud800-\udfff\ue000-\uf8ff\ufdd0-\ufdef\ufffe\uffff\U000f0000-\U0010ffff]"
)

_EMOJI = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001fbff]"
)
_ELEMENT = f"{_EMOJI}[\ufe0e\ufe0f]?[\U0001f3fb-\U0001f3ff]?"
#: The flags of England, Scotland and Wales are spelled in tags; other tags only hide text.
_REGIONS = "|".join(
    "".join(chr(0xE0000 + ord(letter)) for letter in region)
    for region in ("gbeng", "gbsct", "gbwls")
)
_VIRAMA = "".join(c for c in map(chr, range(0x900, 0x12000)) if unicodedata.combining(c) == 9)  # noqa: PLR2004 the class of viramas
_ARABIC = (
    "\u0620-\u064a\u066e-\u06d3\u06d5\u06ee\u06ef\u06fa-\u06ff\u0710-\u072f\u074d-\u077f"
    "\u07ca-\u07ea\u0840-\u0858\u0860-\u088e\u08a0-\u08c9"
)
_ARABIC_MARKS = "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e8\u06ea-\u06ed"
_MONGOLIAN = "\u1820-\u18aa"
_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"

#: Where characters without a shape of their own change the shape of their neighbours.
_SHAPING = "|".join(
    [
        f"\U0001f3f4(?:{_REGIONS})\U000e007f",
        f"{_ELEMENT}(?:\u200d{_ELEMENT})*",
        "[0-9#*]\ufe0f?\u20e3",
        f"(?<=[{_VIRAMA}])[\u200c\u200d]",
        f"(?<=[\u0900-\u0dff])[\u200c\u200d](?=[{_VIRAMA}])",
        f"(?<=[{_ARABIC}{_ARABIC_MARKS}])\u200c(?=[{_ARABIC}])",
        f"(?<=[{_ARABIC}{_ARABIC_MARKS}])\u200d",
        f"\u200d(?=[{_ARABIC}])",
        f"(?<=[{_MONGOLIAN}])[\u180b-\u180d\u180f]",
        f"(?<=[{_MONGOLIAN}])\u180e(?=[{_MONGOLIAN}])",
        f"(?<=[{_HAN}])[\ufe00-\ufe02\U000e0100-\U000e01ef]",
        "(?<=[\u2801-\u28ff])\u2800(?=[\u2801-\u28ff])",
    ]
)
_HIDDEN = re.compile(_INVISIBLE)
_SHAPING_OR_HIDDEN = re.compile(f"({_SHAPING})|{_INVISIBLE}")


def fact_line(at: datetime | None, turn_id: str | None, text: Quoted, times_said: int = 1) -> str:
    """Return a fact as an entry of the block, with the day and the turn it comes from if known.

    If it was said several times, it says so.
    """
    day = [f"{at.day:02} {_MONTHS[at.month - 1]} {at.year}"] if at else []
    turn = [f"turn {_NOT_OF_AN_ID.sub('', turn_id[-_SHORT_ID:])}"] if turn_id else []
    times = [f"said {times_said} times"] if times_said > 1 else []
    origin = f" <{', '.join(day + turn + times)}>" if day or turn or times else ""
    indented = text.replace("\n", "\n  ")
    return f"- {indented}{origin}"


def quoted(text: str, about: str = "", longest: int = LONGEST_FACT) -> Quoted:
    """Return a text that shows what it holds and holds no angle bracket, not even as an entity.

    Of a text of more than `longest` characters, it is the part with most words of what the text is
    quoted about, else its beginning; a mark stands where something was cut off.
    """
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


def _window(text: str, about: str, longest: int) -> slice:
    return best_window(text, words_of(" ".join(both_ends(about, _MOST_COMPARED))), longest)


def visible(text: str) -> str:
    """Return a text without the characters that neither show anything nor shape their neighbours.

    Joiners stay within emoji, and in scripts that need them; so do variation selectors after what
    they vary. Every line break becomes a line feed.
    """
    if text.isascii() and text.isprintable():
        return text
    lines = _LINE_BREAK.sub("\n", text)
    if not _HIDDEN.search(lines):
        return lines
    return _SHAPING_OR_HIDDEN.sub(lambda found: found[1] or "", lines)


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
