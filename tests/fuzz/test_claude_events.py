"""The door of Claude: the events of an answer, its headers, and the bodies of errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from afterword.shared.contracts import Reply, Timings
from afterword.shared.errors import ProviderError
from afterword.workers.adapters.claude.errors import api_error
from afterword.workers.adapters.claude.events import EventParser, Transcript
from afterword.workers.adapters.claude.rate_limits import (
    BUDGETS,
    MAX_PAUSE_S,
    pause_seconds,
    reset_seconds,
)
from afterword.workers.adapters.claude.reported import (
    MOST_TOKENS,
    deprecation,
    is_token_count,
)
from afterword.workers.ports import Answer
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door

PIECES = ("Grüße, ", "20 °C ", "ok")
TEXT = "".join(PIECES)

USAGE = {
    "input_tokens": 9,
    "output_tokens": 5,
    "cache_read_input_tokens": 7,
    "cache_creation_input_tokens": 3,
    "cache_creation": {"ephemeral_5m_input_tokens": 3},
    "service_tier": "standard",
}
EVENTS: list[dict[str, Any]] = [
    {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-5-5",
            "content": [],
            "stop_reason": None,
            "usage": USAGE,
        },
    },
    {"type": "ping"},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    *(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
        for piece in PIECES
    ),
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {
            "stop_reason": "refusal",
            "stop_sequence": None,
            "stop_details": {"type": "refusal", "category": "bio", "explanation": "no"},
        },
        "usage": USAGE,
    },
    {"type": "message_stop"},
]
DELTAS = (3, 4, 5)

#: What the reply depends on; everything else may be anything. A line that is no event at all might
#: have been text.
NEEDED = [
    *((at, *path) for at in range(len(EVENTS)) for path in [(), ("type",)]),
    *((at, "delta", *path) for at in DELTAS for path in [(), ("type",), ("text",)]),
    (2, "content_block", "text"),
    (7, "delta"),
    (7, "delta", "stop_reason"),
]


def answer_of(events: object) -> Answer:
    """Read an answer as the client does, from its bytes to the first `message_stop`."""
    parser = EventParser()
    transcript = Transcript("asked", {"request-id": "req_1"})
    pieces = []
    for event in events if isinstance(events, list) else [events]:
        line = b"data: " + json.dumps(event).encode() + b"\n"
        for read in parser.feed(line):
            pieces.append(transcript.add(read))
            if read["type"] == "message_stop":
                answer = transcript.answer()
                assert "".join(pieces) == answer.text
                return answer
    return transcript.answer()


def stored(answer: Answer) -> Reply:
    """Make of an answer what the ledger keeps, in full."""
    reply = Reply(
        job_id="j",
        user_id="ann",
        conversation_id=None,
        text=answer.text,
        stop_reason=answer.stop_reason,
        stop_details=answer.stop_details,
        model=answer.model,
        usage=answer.usage,
        memory="off",
        attempts=1,
        timings_ms=Timings(queued=0, recall=0, model=0, total=0),
    )
    return Reply.model_validate_json(reply.model_dump_json().encode())


def assert_bounded(reply: Reply) -> None:
    assert all(0 <= tokens <= MOST_TOKENS for _, tokens in reply.usage)
    assert len(reply.model) <= 128
    assert len(reply.stop_reason) <= 64
    if (details := reply.stop_details) is not None:
        assert len(details.category or "") <= 64
        assert len(details.explanation or "") <= 1000


@pytest.mark.finding(7)
@door("Claude's events", inputs=1500, events=broken(EVENTS))
def test_one_broken_field_costs_no_reply_that_does_not_need_it(events: Broken) -> None:
    try:
        answer = answer_of(events.value)
    except ProviderError:
        assert is_needed(events), f"{events} cost a paid reply"
        return
    assert_bounded(stored(answer))
    if not is_needed(events) and events.how not in ("removed", "repeated"):
        assert (answer.text, answer.stop_reason) == (TEXT, "refusal")


def is_needed(events: Broken) -> bool:
    """Return whether the change is where the text or the end of the answer stands, or above it."""
    return events.where in [(), *NEEDED] and events.how != "added"


LISTING = {
    "type": "model",
    "id": "claude-x",
    "lifecycle": "retired",
    "retires_at": "2026-11-30T00:00:00Z",
}


@door("Claude's list of models", inputs=500, listed=broken(LISTING))
def test_a_broken_listing_is_a_short_warning_or_none(listed: Broken) -> None:
    warning = deprecation("claude-x", listed.value)
    assert warning == "" or warning.startswith("claude-x is ")
    assert len(warning) < 60


@door("Claude's count of tokens", inputs=500, counted=broken({"input_tokens": 7}))
def test_a_broken_count_is_none(counted: Broken) -> None:
    value = counted.value
    number = value.get("input_tokens") if isinstance(value, dict) else None
    assert is_token_count(value) == (type(number) is int and 0 <= number <= MOST_TOKENS)


HEADERS = {
    "request-id": "req_1",
    "date": "Thu, 01 Oct 2026 12:00:00 GMT",
    "retry-after": "7",
    "retry-after-ms": "7000",
    **{f"anthropic-ratelimit-{budget}-remaining": "0" for budget in BUDGETS},
    **{f"anthropic-ratelimit-{budget}-reset": "2026-10-01T12:01:00Z" for budget in BUDGETS},
}
BODY = {
    "type": "error",
    "error": {
        "type": "rate_limit_error",
        "message": "no",
        "details": {"error_code": "ramp_limit_exceeded"},
    },
    "request_id": "req_1",
}


def as_headers(value: object) -> dict[str, str]:
    """Return the headers as HTTP carries them: texts in Latin-1 without line breaks."""
    pairs = value.items() if isinstance(value, dict) else []
    return {
        str(name): str(text).encode("latin-1", "ignore").decode("latin-1").split("\n")[0]
        for name, text in pairs
    }


@door("Claude's headers", inputs=600, headers=broken(HEADERS))
def test_a_broken_header_bounds_every_wait_and_enters_no_log(headers: Broken) -> None:
    told = as_headers(headers.value)
    assert 0 <= pause_seconds(told) <= MAX_PAUSE_S
    assert (reset_seconds(told) or 0) >= 0
    error = api_error(429, told, BODY)
    assert (error.retry_after_s or 0) >= 0
    assert len(str(error)) < 200
    assert str(error).isprintable()


@door("Claude's errors", inputs=600, body=broken(BODY), status=st.integers(200, 599))
def test_a_broken_error_is_an_error_with_a_short_code(body: Broken, status: int) -> None:
    error = api_error(status, HEADERS, body.value)
    assert error.code.replace("_", "").isalnum()
    assert len(error.code) < 40


@door(
    "surrogate pairs of Claude, cut between events",
    inputs=1000,
    text=st.text(st.characters(categories=["Lu", "So", "Cs"]), min_size=1),
    cut=st.integers(0, 10),
)
@pytest.mark.finding(7)
def test_a_pair_that_is_cut_between_two_events_is_joined(text: str, cut: int) -> None:
    units = text.encode("utf-16-le", "surrogatepass")
    at = 2 * (cut % (len(units) // 2 + 1))
    halves = [part.decode("utf-16-le", "surrogatepass") for part in (units[:at], units[at:])]
    begin, *_, stop, end, last = EVENTS
    deltas = [
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": half}}
        for half in halves
    ]
    told = answer_of([begin, *deltas, stop, end, last]).text

    assert told == units.decode("utf-16-le", "replace")
