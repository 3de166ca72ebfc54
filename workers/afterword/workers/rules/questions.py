"""What a question looks like in each language, and when it tells something about who asks.

A question tells something if it speaks of the user, unless it only asks for something of the user
that is known («where do I work», «what is my dog's name») or for advice («can I»), or if it gives a
reason or a circumstance. A clause that does not begin as a question is a statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from typing import Self

from afterword.workers.rules.languages import VOWEL_SIGNS, folded
from afterword.workers.rules.lexicons import NEVER, Lexicon, lexicons
from afterword.workers.rules.pleasantries import is_pleasantry

_CLAUSE_END = re.compile("[,;:\u2013\u2014()\uff0c\u3001\uff1b\uff1a\u060c\u061b]| - ")
_QUESTION_MARKS = "?\uff1f\u061f"
_LETTER = re.compile(r"[^\W_]")
_NOT_LETTERS = re.compile(r"[\W_]+")
_WORD = re.compile(
    f"(?:[^\\W_]|[{VOWEL_SIGNS}])(?:[^\\W_]++|[{VOWEL_SIGNS}]++|['\u2019-](?=[^\\W_]))*+"
)
_NUMBER = re.compile(r"(?<![^ ])_\S*\d")

#: A clause of fewer words is no statement.
_FEWEST_WORDS = 3

#: What the patterns of a lexicon are spelled with.
_PLACES = {"WORD": "[^ _\\d][^ ]*", "NAME": "_[^ ]+", "ANY": "[^ ]+", "~": " "}


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence that is no pleasantry, divided once for the grammars of all languages.

    `marked` is whether a question mark follows its last word. Of its clauses, it has those that are
    no pleasantries.
    """

    marked: bool
    clauses: Sequence[str]

    @classmethod
    def of(cls, text: str) -> Self:
        """Divide the text of a sentence that is no pleasantry."""
        parts = clauses_of(text)
        telling = [part for part in parts if part == text or not is_pleasantry(part)]
        return cls(is_marked(text), telling)


@dataclass(frozen=True, slots=True)
class Grammar:
    """How questions of one language are told apart: see the README of the lexicons."""

    asks: re.Pattern[str]
    personal: re.Pattern[str]
    harmless: re.Pattern[str]
    own: re.Pattern[str]
    advice: re.Pattern[str]
    adds: re.Pattern[str]
    tells: re.Pattern[str]
    unmarked: re.Pattern[str]
    openers: frozenset[str]
    inverts: bool
    spaced: bool
    capital_nouns: bool

    def only_asks(self, sentence: Sentence) -> bool:
        """Return whether a sentence is a question and tells nothing."""
        clauses = list(self.read(sentence.clauses))
        if not (sentence.marked or (len(clauses) == 1 and self.unmarked.search(clauses[0]))):
            return False
        return not any(self._statements(clauses))

    def _statements(self, clauses: Sequence[str]) -> Iterator[bool]:
        """Return for each clause whether it tells something.

        «Ana hates fish, what can I cook?» tells before it asks; «pasta or rice» does not after.
        """
        asked = False
        for at, clause in enumerate(clauses):
            own = self._asked_of_user(clause) if at == 0 else None
            rest = self.harmless.sub(" ", clause) if own is None else self._added(clause, own)
            yield bool(self.personal.search(rest) or self.tells.search(clause, own or 0))
            # «What laptop can I get for 600 euros?»
            yield bool(_NUMBER.search(rest) and self.personal.search(clause))
            asked = asked or bool(self.asks.search(clause))
            if not asked and (self.inverts or at < len(clauses) - 1):
                yield not self.spaced or clause.count(" ") + 1 >= _FEWEST_WORDS

    def _asked_of_user(self, clause: str) -> int | None:
        """Return where the interrogative ends of a clause that asks for something of the user.

        None if it does not, as «where can I».
        """
        own = self.own.search(clause)
        if own is None or self.advice.search(clause):
            return None
        return own.end(own.lastindex) if own.lastindex else 0

    def _added(self, clause: str, asked: int) -> str:
        """Return a clause that says something beside what it asks for, or nothing.

        «Where do I work now?» says nothing; «Where do I work after my divorce?» does.
        """
        return clause if self.adds.search(clause, asked) else ""

    def read(self, clauses: Sequence[str]) -> Iterator[str]:
        """Return clauses as the patterns expect them."""
        for at, clause in enumerate(clauses):
            if self.spaced:
                words = self._words(clause, is_first=at == 0)
                yield " ".join(dropwhile(self.openers.__contains__, words))
            else:
                yield _NOT_LETTERS.sub("", folded(clause))

    def _words(self, clause: str, *, is_first: bool) -> Iterator[str]:
        """Return the folded words; names, and what holds digits, begin with `_`.

        A capital makes a name inside a sentence; where nouns have one, only after another.
        """
        after_capital = False
        for at, word in enumerate(_WORD.findall(clause)):
            capital = _is_capitalised(word)
            named = capital and (after_capital if self.capital_nouns else at > 0 or not is_first)
            name = named or (not word.isalpha() and any(map(str.isdigit, word)))
            yield f"_{folded(word)}" if name else folded(word)
            after_capital = capital and at > 0


def clauses_of(text: str) -> Sequence[str]:
    """Return the clauses of a sentence as they are written."""
    return [part for part in _CLAUSE_END.split(text) if _LETTER.search(part)]


def is_marked(sentence: str) -> bool:
    """Return whether a question mark follows the last word."""
    mark = max(map(sentence.rfind, _QUESTION_MARKS))
    return mark >= 0 and not _LETTER.search(sentence, mark)


def _is_capitalised(word: str) -> bool:
    return word[0].isupper() and word[1:].islower() and word[1] not in "'\u2019"


@cache
def grammar_of(language: str) -> Grammar | None:
    """Return the grammar of a language, None if its questions are not known here."""
    lexicon = lexicons()[language]
    return _compiled(lexicon) if "questions" in lexicon else None


def _compiled(lexicon: Lexicon) -> Grammar:
    questions = lexicon["questions"]
    spaced: bool = questions.get("spaced", True)

    def pattern(key: str) -> re.Pattern[str]:
        lines = [line for line in questions.get(key, "").splitlines() if line]
        return compiled("|".join(lines), whole_words=spaced)

    begins, asks = (questions.get(key, "").split() for key in ("begins", "asks"))
    return Grammar(
        asks=compiled("|".join([f"^(?:{word})" for word in begins] + asks), whole_words=spaced),
        personal=pattern("personal"),
        harmless=pattern("harmless"),
        own=pattern("own"),
        advice=pattern("advice"),
        adds=pattern("adds"),
        tells=pattern("tells"),
        unmarked=pattern("unmarked"),
        openers=frozenset(lexicon.get("openers", "").split()),
        inverts=questions.get("inverts", False),
        spaced=spaced,
        capital_nouns=questions.get("capital_nouns", False),
    )


def compiled(text: str, *, whole_words: bool) -> re.Pattern[str]:
    """Return a pattern of a lexicon, which is spelled as its README says."""
    for place, pattern in _PLACES.items():
        text = text.replace(place, pattern)
    text = folded(text) or NEVER
    return re.compile(f"(?<![^ ])(?:{text})(?![^ ])" if whole_words else text)
