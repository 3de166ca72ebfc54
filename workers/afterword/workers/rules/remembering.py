"""Which turns are remembered: decided once, with the reply, which says so.

Only a message whose job was stopped has none. It is judged when it is to be stored.
"""

from __future__ import annotations

from afterword.shared.contracts import REFUSAL, ChatRequest
from afterword.workers.rules.forgetting import asks_to_forget
from afterword.workers.rules.pleasantries import is_pleasantry
from afterword.workers.rules.relevance import is_question_only
from afterword.workers.rules.requests import is_request_only


def reason_to_skip(
    request: ChatRequest, stop_reason: str, *, memory: bool, pleasantries: bool
) -> str | None:
    """Return why a turn is not remembered, a fixed word; None if it is.

    `memory` is whether the turn could be stored at all. `pleasantries` is whether a message is
    remembered that holds nothing else, or only asks for work.
    """
    if not request.remember:
        return "opted_out"
    if not memory:
        return "memory_off"
    if stop_reason == REFUSAL:  # the model did not answer the message
        return REFUSAL
    return reason_in(request.message, pleasantries=pleasantries)


def reason_in(message: str, *, pleasantries: bool) -> str | None:
    """Return why a message itself is not remembered: all there is to judge if its job was stopped.

    A question that tells something of the user is no question only. No backend is given replies, so
    none finds a fact in the answer to one.
    """
    if not pleasantries and is_pleasantry(message):
        return "pleasantry"
    if is_question_only(message, says_more=not pleasantries):
        return "question_only"
    if asks_to_forget(message):  # stored, it would bring up again what it is about
        return "request_only"
    if not pleasantries and is_request_only(message):
        return "request_only"
    return None
