"""Which messages only ask for work: «Give me a list of healthy snacks».

They say little of who asks, and resemble questions: they would come before what answers one. A
wish for every later reply («give me prices in euros», «always explain it briefly») is none of them,
nor is a message that names somebody or something or speaks of the user.

Whether it says nothing else at all is judged more strictly, because what does is not stored: for
whom, with or without what, where, when and how the work is wanted may say something of the user («a
quiet hotel», «without gluten», «for a beginner», «in simple words»), and so may any clause beside
it. What is not understood asks for no work.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

from afterword.workers.rules.languages import folded, languages_of, script_of
from afterword.workers.rules.lexicons import NEVER, Lexicon, lexicons
from afterword.workers.rules.questions import Grammar, Sentence, compiled, grammar_of
from afterword.workers.rules.relevance import telling_sentences

#: Who writes more than this says what it is for.
LONGEST_REQUEST = 160
_MOST_WORDS = 10
_MOST_UNSPACED = 22


@dataclass(frozen=True, slots=True)
class _Requests:
    """How requests of one language are told apart: see the README of the lexicons."""

    grammar: Grammar
    asks: re.Pattern[str]
    follows: re.Pattern[str]
    tells: re.Pattern[str]
    may_tell: re.Pattern[str]
    spelled: re.Pattern[str]

    def only_ask(self, sentences: Sequence[str]) -> bool | None:
        """Return whether no clause may say more than what it asks for; None if none asks first."""
        clauses = [self._clauses(sentence) or [""] for sentence in sentences]
        if any(self._wanted(first) is None for first, *_ in clauses):
            return None
        return all(map(self._only_asks, chain.from_iterable(clauses))) and not any(
            self.spelled.search(sentence.lstrip()) for sentence in sentences
        )

    def ask(self, sentences: Sequence[str]) -> bool:
        """Return whether each sentence asks for work, and none is known to say more."""
        return all(
            not self.spelled.search(sentence.lstrip())
            and (asked := self._wanted(" ".join(self._clauses(sentence)))) is not None
            and not self._tells(asked)
            for sentence in sentences
        )

    def _clauses(self, sentence: str) -> Sequence[str]:
        return list(self.grammar.read(Sentence.of(sentence).clauses))

    def _only_asks(self, clause: str) -> bool:
        wanted = self._wanted(clause)
        return (
            wanted is not None
            and self._is_short(wanted)
            and not self._tells(wanted)
            and not self.may_tell.search(wanted)
        )

    def _wanted(self, clause: str) -> str | None:
        """Return what a clause asks for, None if it does not ask for work."""
        if self.follows.search(clause):
            return clause
        asked = self.asks.search(clause)
        return asked[1] if asked else None

    def _is_short(self, wanted: str) -> bool:
        if self.grammar.spaced:
            return wanted.count(" ") < _MOST_WORDS
        return len(wanted) <= _MOST_UNSPACED

    def _tells(self, wanted: str) -> bool:
        said = (self.tells, self.grammar.personal, self.grammar.tells)
        return any(pattern.search(wanted) for pattern in said)


def is_request_only(text: str) -> bool:
    """Return whether a message asks for work and surely says nothing else.

    So it does in each language that it may be in and in which it asks for work.
    """
    if len(text) > LONGEST_REQUEST or not _gate(text.isascii()).search(folded(text)):
        return False
    sentences = _telling(text)
    judged = [each.only_ask(sentences) for each in _likely(sentences)] if sentences else []
    return True in judged and False not in judged


def is_request(text: str) -> bool:
    """Return whether a message asks for work, and nothing in it is known to say more."""
    sentences = _telling(text) if len(text) <= LONGEST_REQUEST else ()
    return bool(sentences) and any(each.ask(sentences) for each in _likely(sentences))


def _telling(text: str) -> Sequence[str]:
    return telling_sentences(unicodedata.normalize("NFC", text))


def _likely(sentences: Sequence[str]) -> Iterator[_Requests]:
    likely = languages_of(" ".join(sentences))
    return (_requests_of(each) for each in _known() if not likely or each in likely)


@cache
def _known() -> Sequence[str]:
    return tuple(language for language, lexicon in lexicons().items() if "requests" in lexicon)


@cache
def _gate(is_ascii: bool) -> re.Pattern[str]:  # noqa: FBT001 - what is cached depends on it
    """Return what finds a verb where requests have it, which most messages have not."""
    latin = [each for each in _known() if script_of(each) == "latin"]
    return re.compile("|".join(map(_verb_in_place, latin if is_ascii else _known())))


def _verb_in_place(language: str) -> str:
    lexicon, requests = lexicons()[language], lexicons()[language]["requests"]
    verbs = _spaced(f"{_verbs(requests)}|{_any(requests, 'irregular')}")
    if not lexicon["questions"].get("spaced", True):
        return verbs
    if requests.get("last"):
        return rf"(?<!\w)(?:{verbs})\W*(?:$|[.!?\n\u0964])"
    opening = _spaced(f"{_any(requests, 'opens')}|{_any(lexicon, 'openers')}")
    return rf"(?:^|[.!?,:;\n])\W*(?:(?:{opening})\W+)*(?:{verbs})(?!\w)"


def _spaced(pattern: str) -> str:
    return folded(pattern).replace("~", " ")


@cache
def _requests_of(language: str) -> _Requests:
    grammar = grammar_of(language)
    assert grammar is not None
    requests = lexicons()[language]["requests"]
    names = f"_(?!(?:{_any(requests, 'no_names')})(?![^ ]))ANY"

    def pattern(text: str) -> re.Pattern[str]:
        return compiled(text, whole_words=grammar.spaced)

    return _Requests(
        grammar,
        asks=pattern(_asks(requests, gap="~" if grammar.spaced else "")),
        follows=pattern(f"^(?:{_any(requests, 'follows')})"),
        tells=pattern(f"{_any(requests, 'tells')}|{names}"),
        may_tell=pattern(_any(requests, "may_tell")),
        spelled=re.compile(requests.get("spelled", NEVER)),
    )


def _asks(requests: Lexicon, *, gap: str) -> str:
    """Return the pattern of a clause that asks; its group is what for.

    It begins with a verb, or ends with one. A number is no name where it says how many.
    """
    opens = f"^(?:(?:{_any(requests, 'opens')}){gap})*"
    many = r"(?:_\d\d?(?![^ ]))?"
    sure, please = _any(requests, "irregular"), f"(?:{gap}(?:{_any(requests, 'please')}))?"
    if requests.get("last"):
        return f"{opens}{many}(.*?){gap}(?:{_verbs(requests)}|{sure}){please}$"
    to_whom = f"(?:{gap}(?:{_any(requests, 'me')}))*(?:{gap}|$)"
    what = rf"(?=(?:{_any(requests, 'object')}|_\d\d?|$)(?![^ ]))" if "object" in requests else ""
    asks = f"(?:{_verbs(requests)}){to_whom}{what}|(?:{sure}){to_whom}"
    return f"{opens}(?:{asks}){many}(.*?){please}$"


def _verbs(requests: Lexicon) -> str:
    return f"(?:{_any(requests, 'verbs')}){requests.get('endings', '')}"


def _any(lexicon: Lexicon, key: str) -> str:
    return "|".join(lexicon.get(key, "").split()) or NEVER
