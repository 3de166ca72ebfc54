"""What greets, thanks, agrees, reacts or asks to go on, in every language, and says nothing else.

To ask for the last answer in another way is to go on: "a bit shorter please". To ask for every
answer in that way is a wish of the user, which is remembered.
Neither yes nor no is among it: they answer something, and a model that reads the reply with them
may learn from it. Nor is any word that could be the name of somebody or the answer to a question.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import product

from afterword.workers.rules.languages import VOWEL_SIGNS, folded
from afterword.workers.rules.lexicons import lexicons

#: Longer messages say something.
LONGEST_PLEASANTRY = 120
_MOST_WORDS = 12

_WORD = re.compile(f"(?:[^\\W_]++|[{VOWEL_SIGNS}'-]++)++")
_UNSPACED_LETTER = re.compile("[\u3005-\u30ff\u3400-\u9fff\uff66-\uff9f]")

#: Laughter, however long.
_LAUGHTER = re.compile(
    "(?=a?h+a)[ha]{2,}|(?=a?ja+j)[ja]{3,}|(?:h[eio]){2,}|(?:je){2,}"
    "|(?=\u0430?\u0445+\u0430)[\u0445\u0430]{2,}|(?:\u0445\u0435){2,}"
    "|k{2,}|w+|(?:rs)+|lo+l|xd+|\u0647{2,}|(?:\u0939\u093e)+|\u54c8+"
)
_STRETCHED = re.compile(r"(.)\1{2,}")
_EMOTICON = re.compile(
    r"(?<![^\s.!])(?:[:;=][-'^o]?[)(DPpOo3*|/\\]+|<3+|\^_*\^|[oO]_[oO]|[tT]_[tT])(?![^\s.!,])"
)

#: What only shows a mood or a gesture. Other emoji show things, which may be meant: nuts, a child.
_MOOD = re.compile(
    "[\u2639-\u263b\U0001f600-\U0001f636\U0001f638-\U0001f64f\U0001f910\U0001f911\U0001f913"
    "\U0001f914\U0001f916\U0001f917\U0001f920\U0001f921\U0001f923-\U0001f926\U0001f928-\U0001f92d"
    "\U0001f92f\U0001f937\U0001f970-\U0001f976\U0001f978-\U0001f97a\U0001fae0-\U0001fae8"
    "\u2763-\u2764\u2665\U0001f493-\U0001f49f\U0001f5a4\U0001f90d-\U0001f90f\U0001f9e1"
    "\U0001fa75-\U0001fa77\U0001f44a-\U0001f450\u270a-\u270d\U0001f595\U0001f918-\U0001f91f"
    "\U0001faf0-\U0001faf8\U0001f389\U0001f38a\u2728\u2b50\U0001f31f\U0001f4aa\U0001f4af"
    "\U0001f525\u2705\u2714\u2611\U0001f197\u203c\u2049\u200d\ufe0e\ufe0f\u2640\u2642"
    "\U0001f3fb-\U0001f3ff]"
)
_PUNCTUATION = re.compile(
    "[\u00a0-\u00a1\u00b4\u00b7\u00bf\u060c\u061b\u061f\u06d4\u0964\u0965\u2010-\u2017\u201a-\u2027"
    "\u2030-\u205e\u3000-\u3003\u3008-\u3020\u30fb\uff00-\uff0f\uff1a-\uff20\uff3b-\uff40"
    "\uff5b-\uff65]"
)
#: Letters, digits, and what is drawn and is neither mood nor punctuation.
_SAYING = re.compile(r"[^\W_]|[^\x00-\x7f]")


_CHOICE = re.compile(r"\[([^]]*)\]")
_LEAVES_BLANKS = re.compile(r"[\[|] | [|\]]|[\[|][|\]]")  # a choice of nothing, or beside a blank


def _phrases(*, spaced: bool) -> frozenset[str]:
    return frozenset(
        phrase
        for lexicon in lexicons().values()
        if lexicon.get("questions", {}).get("spaced", True) == spaced
        for pattern in folded(lexicon.get("pleasantries", "")).split("," if spaced else None)
        for phrase in _spelled_out(" ".join(pattern.split()))
    )


def _spelled_out(pattern: str) -> Iterable[str]:
    """Return every phrase of a pattern: `not [bad|funny]` is two."""
    if "[" not in pattern:
        return (pattern,)
    fixed = _CHOICE.split(pattern)
    choices = [part.split("|") if at % 2 else [part] for at, part in enumerate(fixed)]
    phrases = map("".join, product(*choices))
    if _LEAVES_BLANKS.search(pattern):
        return (" ".join(phrase.split()) for phrase in phrases)
    return phrases


_PHRASES, _UNSPACED = _phrases(spaced=True), _phrases(spaced=False)
_LONGEST_UNSPACED = max(map(len, _UNSPACED))
#: By the first two words of phrases, the words of the longest one that begins so.
_LONGEST_FROM: dict[str, int] = {}
for _phrase in _PHRASES:
    _words = _phrase.split(" ", 2)
    if len(_words) > 1:
        _pair = f"{_words[0]} {_words[1]}"
        _LONGEST_FROM[_pair] = max(_LONGEST_FROM.get(_pair, 0), 1 + _phrase.count(" "))
_YES = frozenset(
    word for each in lexicons().values() for word in folded(each.get("yes", "")).split()
)


def is_pleasantry(text: str) -> bool:
    """Return whether a text consists of pleasantries only, or of nothing that says something."""
    if len(text) > LONGEST_PLEASANTRY:
        return not _SAYING.search(_PUNCTUATION.sub("", text))
    plain = text if text.isalpha() else _EMOTICON.sub(" ", text)
    if not plain.isascii():
        plain = _PUNCTUATION.sub(" ", _MOOD.sub(" ", plain))
    plain = folded(plain)
    words = [word for found in _WORD.findall(plain) if (word := found.strip("'-"))]
    if not plain.isascii() and _SAYING.search(_WORD.sub(" ", plain)):
        return False
    if len(words) <= _MOST_WORDS and _are_phrases(words):
        return True
    return bool(_UNSPACED_LETTER.search(plain)) and _is_run("".join(words))


def _are_phrases(words: list[str]) -> bool:
    """Return whether phrases follow each other up to the end, and not all of them are a yes."""
    at = 0
    while at < len(words) - 1 and words[at] in _YES:
        at += 1
    while at < len(words):
        size = _words_of_phrase(words, at)
        if not size:
            return False
        at += size
    return True


def _words_of_phrase(words: list[str], at: int) -> int:
    """Return how many words the longest phrase has that begins here; 0 if none does."""
    word = words[at]
    longest = _LONGEST_FROM.get(" ".join(words[at : at + 2]), 0)
    for size in range(min(longest, len(words) - at), 1, -1):
        if " ".join(words[at : at + size]) in _PHRASES:
            return size
    return int(word in _PHRASES or is_reaction(word))


def is_reaction(word: str) -> bool:
    """Return whether a folded word is laughter, or a phrase with letters that go on: "sooo"."""
    return _STRETCHED.sub(r"\1", word) in _PHRASES or bool(_LAUGHTER.fullmatch(word))


def _is_run(text: str) -> bool:
    """Return whether phrases of an unspaced language follow each other up to the end."""
    reached = {0}
    for at in range(len(text)):
        if at in reached:
            ends = range(at + 1, min(len(text), at + _LONGEST_UNSPACED) + 1)
            reached.update(end for end in ends if text[at:end] in _UNSPACED)
    return len(text) in reached
