"""What crosses a process border arrives as it was sent."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from afterword.shared.contracts import ChatRequest, Event, MemoryUsed, Reply, Timings, Usage
from afterword.shared.lifecycle import JobState

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1
).filter(lambda text: bool(text.strip()))
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(
    message=TEXT,
    system=st.none() | TEXT,
    metadata=st.none() | st.dictionaries(TEXT, JSON, max_size=3),
    expires_in=st.none() | st.floats(0.001, 600_000),
)
def test_a_request_survives_the_ledger(
    message: str, system: str | None, metadata: dict[str, Any] | None, expires_in: float | None
) -> None:
    sent = ChatRequest.parse(
        {
            "user_id": "ann",
            "message": message,
            "system": system,
            "metadata": metadata,
            "expires_in": expires_in,
        },
        max_bytes=10**6,
        max_tokens=10**6,
    )

    read = ChatRequest.model_validate_json(sent.body())

    assert read == sent
    assert read.fingerprint() == sent.fingerprint()


@given(text=st.text(st.characters(exclude_categories=["Cs"])), score=st.floats(0, 1))
def test_a_reply_survives_the_ledger(text: str, score: float) -> None:
    sent = Reply(
        job_id="j00_0",
        user_id="ann",
        conversation_id=None,
        text=text,
        stop_reason="end_turn",
        model="m",
        usage=Usage(input=1, output=2, cache_read=3, cache_write=4),
        memory="overlay",
        memories=(
            MemoryUsed(id="m", text=text, score=score, created_at=datetime(2026, 5, 8, tzinfo=UTC)),
        ),
        attempts=1,
        timings_ms=Timings(queued=1, recall=2, model=3, total=6),
    )

    assert Reply.model_validate_json(sent.model_dump_json()) == sent


def test_an_event_is_read_from_the_plain_fields_of_a_stream() -> None:
    event = Event.model_validate(
        {"id": "7-1", "type": "failed", "attempt": "2", "code": "x", "state": "expired"}
    )

    assert (event.attempt, event.state) == (2, JobState.EXPIRED)


@pytest.mark.parametrize("change", [{"type": "other"}, {"attempt": "many"}])
def test_an_event_of_another_kind_is_not_guessed(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Event.model_validate({"id": "7-1", "type": "delta", "text": "x"} | change)


def test_a_validation_error_does_not_show_the_input() -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate_json('{"user_id": "ann", "message": 7, "odd": "marmalade"}')

    assert "marmalade" not in str(caught.value)
