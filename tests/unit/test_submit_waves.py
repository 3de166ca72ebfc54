"""Many requests at once: what must keep its order goes out one after the other."""

from __future__ import annotations

from afterword.producer.client.job_service import Submission
from afterword.producer.client.ledger_job_service import waves as divided
from afterword.shared.contracts import ChatRequest


def asked(user_id: str, conversation_id: str | None = None) -> ChatRequest:
    return ChatRequest(user_id=user_id, message="hello", conversation_id=conversation_id)


def numbers(*requests: ChatRequest) -> list[list[int]]:
    return [
        list(wave) for wave in divided(dict(enumerate(Submission("j", one) for one in requests)))
    ]


def test_requests_of_no_conversation_go_out_together() -> None:
    assert numbers(asked("ann"), asked("ann"), asked("bob")) == [[0, 1, 2]]


def test_requests_of_one_conversation_go_out_in_turn() -> None:
    waves = numbers(asked("ann", "c"), asked("bob", "c"), asked("ann", "c"), asked("ann", "c"))

    assert waves == [[0, 1], [2], [3]]


def test_no_submits_make_no_wave() -> None:
    assert numbers() == []
