"""A text without what nobody sees: characters that show nothing and shape nothing.

With them text can be hidden from whoever pastes it, and not from a model that reads it.
"""

from __future__ import annotations

import re
import unicodedata

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
