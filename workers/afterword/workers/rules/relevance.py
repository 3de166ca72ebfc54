"""Which messages are worth remembering: no pleasantries and, without extraction, no questions.

A stored question would be the best match of the next question like it, ahead of its answer. The
language of a message is recognised before its rules apply. When in doubt, and in every language
whose questions are not known here, a message counts as worth remembering.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from afterword.workers.rules.languages import Languages, languages_of
from afterword.workers.rules.pleasantries import is_pleasantry
from afterword.workers.rules.questions import Sentence, grammar_of, is_marked

#: Who writes more than this tells something, and nobody asks longer than this without a mark.
LONGEST_CHATTER = 4000
LONGEST_QUESTION = 400
LONGEST_UNMARKED = 80

_SENTENCE_END = re.compile(
    "(?<=[.!?])[\"')\\]\u201d\u2019\u00bb]*\\s+|(?<=[\u3002\uff01\uff1f])|(?<=[\u061f\u0964])\\s*|\n+"
)
_LETTER = re.compile(r"[^\W_]")


def is_question_only(message: str, *, says_more: bool = False) -> bool:
    """Return whether a message consists of questions, none of which tells a fact.

    Pleasantries may stand around them. `says_more` is whether the message is known to be more than
    a pleasantry.
    """
    if len(message) > LONGEST_CHATTER:
        return False
    text = message if message.isascii() else unicodedata.normalize("NFC", message)
    sentences = _sentences(text)
    asking = []
    for part in sentences:
        if not (says_more and part == message) and is_pleasantry(part):
            continue
        if not _may_be_question(part):
            return False
        asking.append(part)
    if not asking:
        return any(map(is_marked, sentences))
    likely = languages_of(" ".join(asking))
    return all(
        _only_asks(Sentence.of(part), languages_of(part) if len(asking) > 1 else likely, likely)
        for part in sorted(asking, key=is_marked)  # what is not marked may tell something
    )


def telling_sentences(text: str) -> Sequence[str]:
    """Return the sentences of a text that are no pleasantries."""
    return [part for part in _sentences(text) if not is_pleasantry(part)]


def told_in(text: str) -> str:
    """Return a message without its sentences that only ask or greet, if there are others."""
    if len(text) > LONGEST_CHATTER:
        return text
    sentences = _sentences(text)
    told = [part.strip() for part in sentences if not (is_pleasantry(part) or _asks(part))]
    return " ".join(told) if 0 < len(told) < len(sentences) else text


def _asks(sentence: str) -> bool:
    return is_marked(sentence) and is_question_only(sentence, says_more=True)


def _sentences(text: str) -> Sequence[str]:
    return [part for part in _SENTENCE_END.split(text) if _LETTER.search(part)]


def _only_asks(sentence: Sentence, own: Languages, likely: Languages) -> bool:
    """Return whether a sentence only asks in every language that it may be in.

    `likely` are the languages of the whole message, which say more if they fit. One whose questions
    are not known here counts only if no other is as likely.
    """
    grammars = [grammar_of(language) for language in own & likely or own or likely]
    known = [each for each in grammars if each]
    return bool(known) and all(each.only_asks(sentence) for each in known)


def _may_be_question(sentence: str) -> bool:
    if is_marked(sentence):
        return len(sentence) <= LONGEST_QUESTION
    return len(sentence) <= LONGEST_UNMARKED and not sentence.rstrip().endswith((".", "!"))
