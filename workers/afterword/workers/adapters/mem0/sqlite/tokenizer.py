"""Splits texts into the tokens of the word index."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import snowballstemmer

from afterword.workers.adapters.mem0.sqlite.folding import fold
from afterword.workers.adapters.mem0.sqlite.function_words import without_function_words

#: Letters of scripts without spaces between words (Thai to Khmer, kana, Han).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
#: Signs that belong to the letter before them: vowels of Indic scripts, tones, viramas.
_SIGNS = "".join(c for c in map(chr, range(0x300, 0x1D00)) if unicodedata.category(c)[0] == "M")
_WORD = re.compile(
    rf"(?P<unspaced>[{_UNSPACED}]+)|[^\W_{_UNSPACED}](?:[^\W_{_UNSPACED}]|[{re.escape(_SIGNS)}])*"
)

#: An address, a version, a part number: something with a digit or an at sign and punctuation.
_CODE = re.compile(r"(?<!\S)(?=\S*[0-9@])[^\w\s]*(\w+(?:[^\w\s]+\w+)+)")
_LONGEST_CODE = 64

#: Two words with the same first letters may be forms of one, and those with the same last letters
#: compounds: Erdnuss, Erdnussallergie, Allergie.
_PART = 5
#: A memory's words are found by their parts from these lengths on.
_MANY_FORMS, _COMPOUND = 6, 9
#: What a part counts of the whole word. A name must not count as one that begins alike.
_WHOLE, _OF_PART = 1.0, 0.5

_STEMMERS = ("russian", "Ѐ", "ԯ"), ("arabic", "\u0600", "\u06ff"), ("hindi", "\u0900", "\u097f")

#: Words whose stems a process remembers: stemming is the most expensive step.
_KNOWN_STEMS = 20_000

#: One word of a query: the tokens that match it, each with the share of its weight.
QueryWord: TypeAlias = Sequence[tuple[str, float]]


class IndexedText(NamedTuple):
    """How many words a text has, repeats included, and the tokens by which it is found."""

    length: int
    tokens: Sequence[str]


def index_text(text: str) -> IndexedText:
    """Return the tokens of a text: the stems of its words, their parts, its codes.

    Case, accents and vowel points do not count. Scripts without spaces are split into overlapping
    pairs of letters.
    """
    folded = fold(text)
    words = _words(folded)
    distinct = dict.fromkeys(words)
    parts = [part for word in distinct for part in _parts(word, _MANY_FORMS, _COMPOUND)]
    tokens = dict.fromkeys([*map(_stem, distinct), *parts, *_codes(folded)])
    return IndexedText(len(words), list(tokens))


def query_words(text: str) -> list[QueryWord]:
    """Return the distinct words of a query, without function words unless there are no others."""
    folded = fold(text)
    words = [
        [(_stem(word), _WHOLE), *((part, _OF_PART) for part in _parts(word, _PART, _PART))]
        for word in dict.fromkeys(without_function_words(_words(folded)))
    ]
    return [*words, *([(code, _WHOLE)] for code in _codes(folded))]


def _words(folded: str) -> list[str]:
    return [word for run in _WORD.finditer(folded) for word in _split(run)]


def _split(run: re.Match[str]) -> list[str]:
    letters = run.group()
    if not run.group("unspaced") or len(letters) == 1:
        return [letters]
    return [letters[i : i + 2] for i in range(len(letters) - 1)]


@lru_cache(maxsize=_KNOWN_STEMS)
def _stem(word: str) -> str:
    scripts = (name for name, first, last in _STEMMERS if first <= word[0] <= last)
    # A stemmer is not thread-safe. Creating one per call costs less than a lock.
    return str(snowballstemmer.stemmer(next(scripts, "english")).stemWord(word))


def _parts(word: str, many_forms: int, compound: int) -> list[str]:
    """Return the first and last letters of a word that is long enough, in an alphabet."""
    if not word.isalpha() or word[0] >= "\u0900":
        return []
    first = [f"{word[:_PART]}-"] if len(word) >= many_forms else []
    return first + ([f"-{word[-_PART:]}"] if len(word) >= compound else [])


def _codes(folded: str) -> list[str]:
    return list(dict.fromkeys(code[:_LONGEST_CODE] for code in _CODE.findall(folded)))
