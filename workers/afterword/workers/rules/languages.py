"""Which languages a short text may be in, by its script, its letters and its function words."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from itertools import chain

from afterword.workers.rules.lexicons import lexicons

Languages = frozenset[str]
_UNKNOWN: Languages = frozenset()

_HAN = "\u3400-\u9fff"
_KANA = "\u3005-\u3007\u3041-\u30ff\uff66-\uff9f"
_CYRILLIC, _ARABIC, _DEVANAGARI = "\u0400-\u04ff", "\u0620-\u06ff", "\u0900-\u097f"
_LATIN = "A-Za-z\u00aa-\u024f"
_SCRIPTS = {
    name: re.compile(f"[{letters}]")
    for name, letters in {
        "east": _HAN + _KANA, "ru": _CYRILLIC, "ar": _ARABIC, "hi": _DEVANAGARI, "latin": _LATIN
    }.items()
}  # fmt: skip
_SCRIPT_OF = {"ja": "east", "zh": "east", "ru": "ru", "ar": "ar", "hi": "hi"}
_OTHER = re.compile(f"[^\\W\\d_{_LATIN}{_HAN}{_KANA}{_CYRILLIC}{_ARABIC}{_DEVANAGARI}]")

#: What a language in the script of another one writes, and that one does not.
_FOREIGN = {
    "ru": re.compile(
        "[\u0402-\u040f\u0452-\u045f\u0490-\u04ff]|(?<!\\w)(?:\u0449\u043e|\u0447\u0438)(?!\\w)"
    ),
    "ar": re.compile("[\u0679-\u06bf\u06c1-\u06d3]"),
    "hi": re.compile(
        "[\u0933]|\u0906\u0939\u0947|\u092e\u093e\u091d|\u0924\u0941\u091d\u094d\u092f|\u091b(?!\\w)"
    ),
}

#: The vowel signs of Hindi, for a class of characters: to `\w` they are no letters.
VOWEL_SIGNS = "\u0900-\u0903\u093a-\u094f"

#: A run of letters with their marks.
_LETTERS = re.compile(f"(?:[^\\W\\d_]++|[{VOWEL_SIGNS}]++)++")

#: Marks that people leave out, and signs that only stretch or join letters.
_LEFT_OUT = re.compile("[\u0300-\u036f\u0640\u064b-\u065f\u0670\u093c\u200b-\u200f\u2060\ufe0f]")
_ALIKE = str.maketrans("\u2018\u2019\u02bc\u0131\u0649\u0629\u6c92", "'''i\u064a\u0647\u6ca1")

#: A letter that few languages write counts as this many words.
_LETTER_WORDS = 2

#: Languages whose score is more than this share of the best one are as likely.
_CLOSE = 0.85

#: At least one word in four is a function word.
_RAREST = 4


def folded(text: str) -> str:
    """Return a text in lower case, full-width forms as ASCII, without accents and vowel points."""
    if text.isascii():
        return text.lower()
    parts = _LEFT_OUT.sub("", unicodedata.normalize("NFKD", text))
    return unicodedata.normalize("NFC", parts).casefold().translate(_ALIKE)


def languages_of(text: str) -> Languages:
    """Return the languages that a text is most likely in: several if they are equally likely.

    Nothing for a script that is unknown here, and for a text that says too little.
    """
    present = scripts_in(text)
    if len(present) > 1 and present[-1] == "latin":
        present.pop()  # a name or a loan word
    if len(present) != 1 or _OTHER.search(text):
        return _UNKNOWN
    return _RECOGNISERS.get(present[0], _of_one)(text, present[0])


def scripts_in(text: str) -> list[str]:
    """Return the scripts that are known here and have letters in a text."""
    if text.isascii():
        return ["latin"]
    return [name for name, script in _SCRIPTS.items() if script.search(text)]


def script_of(language: str) -> str:
    """Return the script of a language, as `scripts_in` calls it."""
    return _SCRIPT_OF.get(language, "latin")


def _of_east(text: str, _: str) -> Languages:
    return frozenset({"ja" if re.search(f"[{_KANA}]", text) else "zh"})


def _of_one(text: str, language: str) -> Languages:
    return _UNKNOWN if _FOREIGN[language].search(text) else frozenset({language})


def _of_hindi(text: str, language: str) -> Languages:
    known = _HINDI.intersection(_LETTERS.findall(folded(text)))
    return _of_one(text, language) if known else _UNKNOWN


def _of_latin(text: str, _: str) -> Languages:
    words = _LETTERS.findall(folded(text))
    known = [found for word in words if (found := _BY_WORD.get(word))]
    letters = () if text.isascii() else _BY_LETTER.keys() & set(text.lower())
    scores: dict[str, float] = defaultdict(float)
    for share, languages in chain(known, (_BY_LETTER[letter] for letter in letters)):
        for language in languages:
            scores[language] += share
    if not scores or (len(known) + len(letters)) * _RAREST < len(words):
        return _UNKNOWN
    enough = _CLOSE * max(scores.values())
    return frozenset(language for language, score in scores.items() if score > enough)


_RECOGNISERS: dict[str, Callable[[str, str], Languages]] = {
    "east": _of_east, "hi": _of_hindi, "latin": _of_latin
}  # fmt: skip


def _languages_by(
    key: str, split: Callable[[str], list[str]], words: int = 1
) -> dict[str, tuple[float, list[str]]]:
    """Return which languages have each word or letter, and how much it says for one of them."""
    languages: dict[str, list[str]] = defaultdict(list)
    for language, lexicon in lexicons().items():
        for part in set(split(lexicon.get(key, ""))):
            languages[part].append(language)
    return {part: (words / len(which), which) for part, which in languages.items()}


_BY_WORD = _languages_by("words", lambda text: folded(text).split())
_BY_LETTER = _languages_by("letters", list, _LETTER_WORDS)
_HINDI = frozenset(folded(lexicons()["hi"]["words"]).split())
