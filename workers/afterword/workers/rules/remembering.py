"""Which turns are remembered: decided once, with the reply, which says so.

Only a message whose job was stopped has none. It is judged when it is to be stored.
"""

from __future__ import annotations

from afterword.shared.contracts import REFUSAL, ChatRequest
from afterword.workers.rules.relevance import is_pleasantry_only, is_question_only


def reason_to_skip(
    request: ChatRequest, stop_reason: str, *, memory: bool, pleasantries: bool, questions: bool
) -> str | None:
    """Return why a turn is not remembered, a fixed word; None if it is.

    `memory` is whether the turn could be stored at all. `pleasantries` and `questions` are whether
    turns are remembered whose message holds nothing else: where facts are extracted, the reply to a
    question may hold some.
    """
    if not request.remember:
        return "opted_out"
    if not memory:
        return "memory_off"
    if stop_reason == REFUSAL:  # the model did not answer the message
        return REFUSAL
    return reason_in(request.message, pleasantries=pleasantries, questions=questions)


def reason_in(message: str, *, pleasantries: bool, questions: bool) -> str | None:
    """Return why a message itself is not remembered: all there is to judge if its job was stopped.

    The arguments mean what they mean above.
    """
    if not pleasantries and is_pleasantry_only(message):
        return "pleasantry"
    if not questions and is_question_only(message):
        return "question_only"
    return None
