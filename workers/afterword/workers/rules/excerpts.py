"""Which part of a long text matters: the ends of a message, and what of a memory fits a message."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from afterword.workers.rules.languages import VOWEL_SIGNS, folded

#: Words as a search knows them: their first letters, so that `allergic` finds `allergies`.
Words = frozenset[str]

_WORD = re.compile(f"(?:[^\\W_]|[{VOWEL_SIGNS}])+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u3400-\u9fff]")
_STEM = 5

_SENTENCE = re.compile(
    "[^.!?\n\u3002\uff01\uff1f]*(?:[.!?\u3002\uff01\uff1f]+[\"')\u201d\u2019\u00bb]*|\n|$)\\s*"
)
#: A letter after these belongs to the one before them; flags are pairs of letters of their own.
_VIRAMA = re.compile(
    "[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca][\u200c\u200d]?$"
)
_FLAG_LETTERS = re.compile("[\U0001f1e6-\U0001f1ff]+$")
_MOST_FLAG_LETTERS = 200

_BREAKS = ("\n\n", "\n")
_BLANK = re.compile(r"\s")


class _Hit(NamedTuple):
    """A word of a text that was looked for."""

    word: str
    start: int
    end: int


def both_ends(text: str, longest: int) -> tuple[str, ...]:
    """Return a text of at most `longest` characters whole, of a longer one its two ends.

    A question stands before or after what it is about, so an end is a paragraph, else a line, else
    a few sentences. It has at most half of `longest` characters; what is longer is cut.
    """
    text = text.strip()
    if len(text) <= longest:
        return (text,)
    half = longest // 2
    # No more is looked at of a text than could be in its ends.
    return (_first(text[: half + 1], half), _last(text[-half - 1 :], half))


def _first(start: str, longest: int) -> str:
    for line_break in _BREAKS:
        before, found, _ = start.partition(line_break)
        if found:
            return before.strip()
    whole = _sentences(start)[:-1]
    return "".join(whole[: _few(whole, longest)]).strip() or start[:longest].strip()


def _last(end: str, longest: int) -> str:
    for line_break in _BREAKS:
        _, found, after = end.rpartition(line_break)
        if found:
            return after.strip()
    whole = _sentences(end)[1:]
    few = _few(whole[::-1], longest)
    return "".join(whole[len(whole) - few :]).strip() or end[-longest:].strip()


def _sentences(text: str) -> list[str]:
    return [found[0] for found in _SENTENCE.finditer(text) if found[0]]


def _few(sentences: Sequence[str], longest: int) -> int:
    """Return how many sentences fill half of an end: at least one, if there is any."""
    lengths = accumulate(map(len, sentences))
    return max(sum(length <= longest // 2 for length in lengths), min(1, len(sentences)))


def words_of(text: str) -> Words:
    """Return the words of a text, and each pair of letters where no spaces are between words."""
    return frozenset(word for word, _, _ in _words(text))


def best_window(text: str, wanted: Words, longest: int) -> slice:
    """Return which part of a text, of at most `longest` characters, has most of the wanted words.

    A word that is rare in the text counts for more. Without any it is the beginning.
    """
    if len(text) <= longest:
        return slice(0, len(text))
    hits = [_Hit(*found) for found in _words(text) if found[0] in wanted]
    if not hits:
        return slice(0, _end_of(text, 0, longest))
    chosen = _densest(hits, longest)
    start = _start_of(text, chosen, longest)
    return slice(start, _end_of(text, start, longest))


def _words(text: str) -> Iterator[tuple[str, int, int]]:
    """Return the words of a text, with where each begins and ends."""
    fold = str.lower if text.isascii() else folded
    for found in _WORD.finditer(text):
        letters, (start, end) = found[0], found.span()
        if _UNSPACED.match(letters) and len(letters) > 1:
            yield from (
                (letters[at : at + 2], start + at, start + at + 2) for at in range(end - start - 1)
            )
        else:
            yield fold(letters)[:_STEM], start, end


def _densest(hits: Sequence[_Hit], longest: int) -> Sequence[_Hit]:
    """Return the neighbouring hits that fit into a window and are worth most together."""
    worth = {word: 1 / count for word, count in Counter(hit.word for hit in hits).items()}
    inside: Counter[str] = Counter()
    best, best_score, score, first = slice(0, 1), 0.0, 0.0, 0
    for last, hit in enumerate(hits):
        inside[hit.word] += 1
        score += worth[hit.word] if inside[hit.word] == 1 else 0.0
        while first < last:
            left = hits[first].word
            if hit.end - hits[first].start <= longest and inside[left] == 1:
                break
            inside[left] -= 1
            score -= 0.0 if inside[left] else worth[left]
            first += 1
        if score > best_score + 1e-9:
            best, best_score = slice(first, last + 1), score
    return hits[best]


def _start_of(text: str, hits: Sequence[_Hit], longest: int) -> int:
    """Return where a window around these hits begins: at a sentence, else at a word, if it can."""
    spare = max(0, longest - (hits[-1].end - hits[0].start))
    earliest = max(0, hits[0].start - spare // 2)
    if earliest == 0:
        return 0
    before = text[earliest - 1 : hits[0].start]
    sentences = _sentences(before)
    if len(sentences) > 1:
        return earliest - 1 + len(sentences[0])
    blank = _BLANK.search(before)
    return earliest - 1 + blank.end() if blank else hits[0].start


def _end_of(text: str, start: int, longest: int) -> int:
    """Return where a window ends: before a blank, if one is near; never within a letter."""
    end = min(len(text), start + longest)
    if end == len(text):
        return end
    blanks = [found.start() for found in _BLANK.finditer(text, end - longest // 10, end + 1)]
    return blanks[-1] if blanks else max(_whole(text, end), start + 1)


def _whole(text: str, end: int) -> int:
    """Return the last place up to `end` that parts no letter from its marks, and no flag."""
    while end > 0 and (_is_mark(text[end]) or _VIRAMA.search(text, max(0, end - 2), end)):
        end -= 1
    flags = _FLAG_LETTERS.search(text, max(0, end - _MOST_FLAG_LETTERS), end)
    return end - 1 if flags and len(flags[0]) % 2 and _FLAG_LETTERS.match(text[end]) else end


def _is_mark(letter: str) -> bool:
    return unicodedata.category(letter)[0] == "M" or "\U0001f3fb" <= letter <= "\U0001f3ff"
