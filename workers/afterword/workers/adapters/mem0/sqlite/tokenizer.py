"""Splits a text into the tokens of the word index."""

from __future__ import annotations

import re
import unicodedata

import snowballstemmer

#: Letters of scripts without spaces between words (Thai to Khmer, kana, Han).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_RUN = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|[^\W_{_UNSPACED}]+")

#: English words that say nothing about a text's subject. Not `may`, which is also a month.
_STOP_WORDS = """
    a about am an and any are as at be been being but by can could d did do does doing don for
    from get got had has have having he her here hers him his how i if in into is it its just ll
    m me my no not of on or our ours out please re s she should so some such t than that the
    their them then there these they this those to too up us ve very was we were what when where
    which who whom why will with would you your yours
"""
_STOP = frozenset(_STOP_WORDS.split())


def tokenize(text: str) -> list[str]:
    """Return the stems of a text's words, in order and with repeats.

    Case and accents are removed. Stop words are left out, unless there are no other words. Scripts
    without spaces are split into overlapping pairs of letters.
    """
    found = [word for run in _RUN.finditer(_fold(text)) for word in _split(run)]
    kept = [word for word in found if word not in _STOP] or found
    # A stemmer is not thread-safe. Creating one per call costs less than a lock.
    stem = snowballstemmer.stemmer("english").stemWord
    stems = {word: stem(word) for word in set(kept)}
    return [stems[word] for word in kept]


def _fold(text: str) -> str:
    if text.isascii():
        return text.lower()
    parts = unicodedata.normalize("NFKD", text)
    bare = "".join(part for part in parts if not unicodedata.combining(part))
    return unicodedata.normalize("NFC", bare.casefold())


def _split(run: re.Match[str]) -> list[str]:
    letters = run.group()
    if not run.group("unspaced") or len(letters) == 1:
        return [letters]
    return [letters[i : i + 2] for i in range(len(letters) - 1)]
