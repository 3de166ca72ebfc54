"""Requests to forget something: «Forget my cat», «Please forget that I live in Ghent».

They tell nothing that is to be remembered: stored, they would bring up again what they are about. A
clause that says more («Forget my cat, I have a dog now») makes a message none of them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from afterword.workers.rules.languages import folded
from afterword.workers.rules.lexicons import lexicons
from afterword.workers.rules.pleasantries import is_pleasantry
from afterword.workers.rules.questions import clauses_of, compiled, grammar_of
from afterword.workers.rules.relevance import telling_sentences

#: Longer messages say more than that.
_LONGEST = 120


def asks_to_forget(text: str) -> bool:
    """Return whether a message asks to forget something, and says nothing else."""
    if len(text) > _LONGEST or not _cues().search(folded(text)):
        return False
    sentences = [_told(each) for each in telling_sentences(text)]
    return bool(sentences) and any(
        all(_asks(each, language) for each in sentences)
        for language, lexicon in lexicons().items()
        if "forget" in lexicon
    )


def _told(sentence: str) -> Sequence[str]:
    """Return the clauses of a sentence without pleasantries, of which «forget it» is another."""
    return [
        each
        for each in clauses_of(sentence)
        if _cues().search(folded(each)) or not is_pleasantry(each)
    ]


def _asks(told: Sequence[str], language: str) -> bool:
    grammar = grammar_of(language)
    assert grammar is not None
    clauses = grammar.read(told)
    return bool(_patterns(language).search((" , " if grammar.spaced else ",").join(clauses)))


@cache
def _cues() -> re.Pattern[str]:
    """Return what finds a word without which nobody asks to forget anything."""
    cues = " ".join(each["forget"]["cues"] for each in lexicons().values() if "forget" in each)
    return re.compile("|".join(folded(cues).split()))


@cache
def _patterns(language: str) -> re.Pattern[str]:
    lexicon = lexicons()[language]
    asks = lexicon["forget"]["asks"].strip().splitlines()
    return compiled("|".join(asks), whole_words=lexicon["questions"].get("spaced", True))
