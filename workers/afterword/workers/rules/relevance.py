"""Which messages are worth remembering: no pleasantries and, without extraction, no questions.

A stored question would be the best match of the next question like it, ahead of its answer. When in
doubt, a message counts as worth remembering. The rules know English, and some Chinese and Japanese.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import dropwhile, pairwise

_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]”’]*\s+|(?<=[。！？؟])|\n+")  # noqa: RUF001
_CLAUSE_END = re.compile(r"[,;:–—()，、；：]| - ")  # noqa: RUF001
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
_DIGIT_OR_LETTER = re.compile(r"[^\W_]")
_QUESTION_MARK = re.compile(r"[?？؟]")  # noqa: RUF001

_HAN_OR_KANA = re.compile(r"[\u3041-\u30ff\u3400-\u9fff]")
_ASKS_IN_HAN = re.compile(r"[什谁誰哪几幾吗嗎呢何怎]|どこ|いつ|だれ|なぜ|どう|ですか|ますか")
_STATES_IN_HAN = re.compile(r"[记記][住得下]|覚え|忘れ|因[为為]|から")


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WH = _set("how how's what what's when when's where where's which who who's whom whose why why's")
_VERBS = _set(
    "ain't am are aren't can can't could couldn't did didn't do does doesn't don't had hadn't has "
    "hasn't have haven't is isn't may might must shall should shouldn't was wasn't were weren't "
    "will won't would wouldn't"
)
_ASKERS = _WH | _VERBS | _set("any anybody anyone anything")
_OPENERS = _set(
    "also and anyway btw but by great hello hey hi now ok okay or please so sorry thank thanks "
    "the then way well yes you"
)
_MODALS = _set("can could do may might must ought shall should would")
_COPULAS = _set("are aren't had has hasn't have haven't is isn't was wasn't were weren't")
_REASONS = _set("because since given")
_SAYING = _set("believe mention mentioned said say tell told think thought you")
_TELLING = _SAYING | _set("forget know mind note remember")

#: Words that carry a conversation and say nothing about who speaks. Neither yes nor no: they
#: answer something, and a model that reads the reply with them may learn from it.
_PLEASANTRIES = _set(
    "ah aha alright amazing awesome bye cheers cool excellent fine goodbye good good-bye great "
    "gotcha haha hello hey hi hm hmm lol many morning much night nice no-problem oh ok okay okey "
    "perfect please see so super thank thanks thankyou thx too understood very welcome well "
    "wonderful wow you ya later got it that that's evening afternoon for all the help again"
)
_LONGEST_PLEASANTRY = 6

#: How many words after `my` its verb may stand: «my two little girls are ...».
_REACH = 4

_I = re.compile(r"(i|we)('(m|re|ve|d|ll))?")


def is_question_only(text: str) -> bool:
    """Return whether a message consists of questions only, none of which states a fact."""
    plain = text.replace("’", "'")  # noqa: RUF001
    sentences = [part for part in _SENTENCE_END.split(plain) if part and _WORD.search(part)]
    return bool(sentences) and all(_asks(part) and not _states(part) for part in sentences)


def is_pleasantry_only(text: str) -> bool:
    """Return whether a message is only a greeting, thanks, an okay or the like."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())  # noqa: RUF001
    if not words:
        return not _DIGIT_OR_LETTER.search(text)
    known = all(word.replace("’", "'") in _PLEASANTRIES for word in words)  # noqa: RUF001
    return known and len(words) <= _LONGEST_PLEASANTRY


def _asks(sentence: str) -> bool:
    *_, last = _WORD.finditer(sentence)
    return _QUESTION_MARK.search(sentence, last.end()) is not None


def _states(question: str) -> bool:
    parts = _CLAUSE_END.split(question)
    if _HAN_OR_KANA.search(question):
        return len(parts) > 1 or not _only_asks_in_han(question)
    asked = False
    for clause in filter(None, map(_words, parts)):
        asks = clause[0] in _ASKERS
        # «Ana hates fish, what can I cook?» tells before it asks; «pasta or rice» does not after.
        if _confides(clause) or (len(clause) > 2 and not asks and not asked):  # noqa: PLR2004
            return True
        asked = asked or asks
    return False


def _only_asks_in_han(question: str) -> bool:
    return bool(_ASKS_IN_HAN.search(question)) and not _STATES_IN_HAN.search(question)


def _words(clause: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(clause)]
    return list(dropwhile(_OPENERS.__contains__, words))


def _confides(words: Sequence[str]) -> bool:
    """Return whether a statement hides in a clause, as in «can you remember that I ...»."""
    asking = _WH | _VERBS | (_SAYING if words[0] in _WH else frozenset())
    return any(
        _begins_statement(before, word, words[at : at + _REACH], asking)
        for at, (before, word) in enumerate(pairwise(["", *words]), start=1)
    )


def _begins_statement(before: str, word: str, after: Sequence[str], asking: frozenset[str]) -> bool:
    if _I.fullmatch(word):
        return before not in asking and bool(after) and after[0] not in _MODALS
    if word in ("my", "our"):
        opens = not before and len(after) > 1
        return before not in asking and (opens or not _COPULAS.isdisjoint(after))
    if word in _REASONS:
        return len(after) > 1 and after[0] not in _WH
    return word == "that" and before in _TELLING and len(after) > 1
