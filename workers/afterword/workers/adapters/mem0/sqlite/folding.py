"""Folds what is written in several ways and reads the same: case, width, accents, vowel points."""

from __future__ import annotations

import re
import unicodedata

#: What may be left out in writing: accents of Latin, Greek and Cyrillic letters, Arabic and Hebrew
#: vowel points, the stretched line of Arabic. Not the vowel signs of India and Thailand, nor the
#: voicing marks of kana: they are letters.
_OPTIONAL = re.compile(
    "[\u0300-\u036f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u0640"
    "\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u093c]"
)

#: Letters that are written for each other: the Turkish dotless i, whose capital is any I, and the
#: forms of Arabic letters that depend on the keyboard.
_SAME = str.maketrans("ıىیک", "iييك")


def fold(text: str) -> str:
    """Return the text in lower case, with one spelling for what readers take for the same."""
    if text.isascii():
        return text.lower()
    apart = unicodedata.normalize("NFKD", text.casefold())
    bare = _OPTIONAL.sub("", apart).casefold().translate(_SAME)
    return unicodedata.normalize("NFC", bare)
