"""Which turns are remembered, and why the others are not."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import ChatRequest
from afterword.workers.rules.remembering import reason_to_skip

TOLD, ASKED, THANKED = "I like tea.", "What do I like?", "Thanks!"
WANTED = "Write a haiku about winter."


def asked(message: str, **fields: bool) -> ChatRequest:
    return ChatRequest(user_id="ann", message=message, **fields)


@pytest.mark.parametrize(
    ("message", "kept", "reason"),
    [
        (TOLD, {}, None),
        (ASKED, {}, "question_only"),
        ("What can I cook? I am allergic to nuts.", {}, None),
        (THANKED, {"pleasantries": False}, "pleasantry"),
        (THANKED, {"pleasantries": True}, None),
        (WANTED, {"pleasantries": False}, "request_only"),
        (WANTED, {"pleasantries": True}, None),
        (TOLD, {"memory": False}, "memory_off"),
        (ASKED, {"memory": False}, "memory_off"),
    ],
)
def test_the_reason_is_what_the_message_lacks(
    message: str, kept: dict[str, bool], reason: str | None
) -> None:
    all_kept = {"memory": True, "pleasantries": False} | kept
    assert reason_to_skip(asked(message), "end_turn", **all_kept) == reason


def test_a_refusal_is_not_remembered_whatever_was_said() -> None:
    for message in (TOLD, ASKED, THANKED, WANTED):
        kept = {"memory": True, "pleasantries": True}
        assert reason_to_skip(asked(message), "refusal", **kept) == "refusal"


def test_a_request_that_opts_out_is_not_remembered_whatever_else_holds() -> None:
    kept = {"memory": True, "pleasantries": True}
    for stop_reason in ("end_turn", "refusal"):
        assert reason_to_skip(asked(TOLD, remember=False), stop_reason, **kept) == "opted_out"
