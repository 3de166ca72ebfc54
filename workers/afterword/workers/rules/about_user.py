"""Questions for all that is known of the user: «What do you know about me?», «Who am I?».

They have no subject by which memories could be found. With one it is another question: «What do
you know about my dog?».
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache

from afterword.workers.rules.languages import VOWEL_SIGNS, folded, script_of
from afterword.workers.rules.lexicons import lexicons
from afterword.workers.rules.pleasantries import is_pleasantry
from afterword.workers.rules.questions import compiled

#: Longer messages say more than that.
_LONGEST = 120

_WORD = re.compile(f"(?:[^\\W_]++|['{VOWEL_SIGNS}]++)++")

#: Written without spaces between words.
_UNSPACED = "east"


def asks_about_user(text: str) -> bool:
    """Return whether a message asks for what is known of the user as a whole, and nothing else."""
    if len(text) > _LONGEST:
        return False
    words = _WORD.findall(folded(text))
    return any(_asks(words, language) for language in _languages(words))


def _languages(words: Sequence[str]) -> Iterable[str]:
    """Return the languages that have a word without which none of their questions is asked."""
    units = words if all(map(str.isascii, words)) else [*words, *"".join(words)]
    by_cue = _by_cue()
    return {language for unit in units for language in by_cue.get(unit, ())}


def _asks(words: Sequence[str], language: str) -> bool:
    """Return whether nothing but pleasantries is left of a text without its questions."""
    gap = "" if script_of(language) == _UNSPACED else " "
    fillers, questions = _patterns(language)
    said = gap.join(words)
    return any(
        questions.search(each) and is_pleasantry(_without(fillers, questions.sub(gap, each), gap))
        for each in (said, _without(fillers, said, gap))
    )


def _without(fillers: re.Pattern[str], said: str, gap: str) -> str:
    return gap.join(fillers.sub(gap, said).split())


@cache
def _by_cue() -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for language, lexicon in lexicons().items():
        for cue in folded(lexicon.get("about_user", {}).get("cues", "")).split():
            found[cue].append(language)
    return dict(found)


@cache
def _patterns(language: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds the fillers of a language, and its questions."""
    known, spaced = lexicons()[language]["about_user"], script_of(language) != _UNSPACED
    fillers, questions = known["fillers"].split(), known["asks"].strip().splitlines()
    return (
        compiled("|".join(fillers), whole_words=spaced),
        compiled("|".join(questions), whole_words=spaced),
    )
