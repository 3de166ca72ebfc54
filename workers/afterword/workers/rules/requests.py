"""Which messages only ask for work: «Give me a list of healthy snacks».

They say little of who asks, and resemble questions: they would come before what answers one. A
wish for every later reply («give me prices in euros», «always explain it briefly») is none of them,
nor is a message that names somebody or something, has a number or speaks of the user. What is not
understood asks for no work.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from afterword.workers.rules.languages import languages_of
from afterword.workers.rules.lexicons import Lexicon, lexicons
from afterword.workers.rules.questions import Grammar, Sentence, compiled, grammar_of
from afterword.workers.rules.relevance import telling_sentences

#: Who writes more than this says what it is for.
LONGEST_REQUEST = 160

_NAME_OR_DIGIT = re.compile(r"(?<![^ ])_|\d")


@dataclass(frozen=True, slots=True)
class _Requests:
    """How requests of one language are told apart: see the README of the lexicons."""

    grammar: Grammar
    asks: re.Pattern[str]
    tells: re.Pattern[str]
    spelled: re.Pattern[str]

    def match(self, sentence: str) -> bool:
        words = " ".join(self.grammar.read(Sentence.of(sentence).clauses))
        return (
            bool(self.asks.search(words))
            and not self.tells.search(words)
            and not _NAME_OR_DIGIT.search(words)
            and not self.spelled.search(sentence.lstrip())
        )


def is_request_only(text: str) -> bool:
    """Return whether a message asks for work and says nothing else."""
    if len(text) > LONGEST_REQUEST:
        return False
    sentences = telling_sentences(unicodedata.normalize("NFC", text))
    if not sentences:
        return False
    likely = languages_of(" ".join(sentences))
    tried = _known() if not likely else tuple(each for each in _known() if each in likely)
    return any(all(map(_requests_of(each).match, sentences)) for each in tried)


@cache
def _known() -> Sequence[str]:
    return tuple(language for language, lexicon in lexicons().items() if "requests" in lexicon)


@cache
def _requests_of(language: str) -> _Requests:
    grammar = grammar_of(language)
    assert grammar is not None
    requests = lexicons()[language]["requests"]
    tells = "|".join(requests["tells"].split())
    return _Requests(
        grammar,
        compiled(_asks(requests, spaced=grammar.spaced), whole_words=grammar.spaced),
        compiled(tells, whole_words=grammar.spaced),
        re.compile(requests.get("spelled", "(?!)")),
    )


def _asks(requests: Lexicon, *, spaced: bool) -> str:
    """Return the pattern of a clause that asks: it begins with a verb, or ends with one."""
    verbs = f"(?:{'|'.join(requests['verbs'].split())}){requests.get('endings', '')}"
    all_verbs = "|".join([verbs, *requests.get("irregular", "").split()])
    if requests.get("last"):
        return f"(?:{all_verbs})$"
    opens = "|".join(requests.get("opens", "").split())
    return f"^(?:(?:{opens}){'~' if spaced else ''})*(?:{all_verbs})"
