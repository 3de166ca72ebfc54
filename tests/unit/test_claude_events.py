"""Claude's events, however their bytes are split into chunks."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.errors import BadAnswer
from afterword.workers.adapters.claude import events as claude_events
from afterword.workers.adapters.claude.events import EventParser, Transcript

texts = st.lists(st.text(), min_size=1, max_size=6)


def delta(text: str) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": text},
    }


def start(usage: dict[str, Any]) -> dict[str, Any]:
    return {"type": "message_start", "message": {"model": "m", "usage": usage}}


def end(stop_reason: str, usage: dict[str, Any] | None) -> list[dict[str, Any]]:
    stopped = {"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": usage}
    return [stopped, {"type": "message_stop"}]


def wire(events: list[dict[str, Any]], newline: bytes = b"\n") -> bytes:
    lines = [
        line
        for event in events
        for line in (
            b": a comment",
            b"event: " + event["type"].encode(),
            b"data: " + dump(event),
            b"",
        )
    ]
    return newline.join(lines) + newline


def dump(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogatepass")


@given(texts, st.data(), st.sampled_from([b"\n", b"\r\n"]))
def test_events_may_be_split_over_chunks_anywhere(
    said: list[str], drawn: st.DataObject, newline: bytes
) -> None:
    events = [delta(text) for text in said]
    raw = wire(events, newline)
    cuts = sorted(drawn.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    parser = EventParser()
    parts = zip([0, *cuts], [*cuts, len(raw)], strict=True)
    assert [event for a, b in parts for event in parser.feed(raw[a:b])] == events


@given(st.binary(max_size=60))
def test_garbage_raises_bad_answer(garbage: bytes) -> None:
    with suppress(BadAnswer):
        list(EventParser().feed(b"data: " + garbage + b"\n"))


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"type": 1}',
        b"{}",
        b"[]",
        b"",
        b'"x"',
    ],
    ids=["depth", "type", "no type", "list", "nothing", "text"],
)
def test_lines_that_are_not_events_are_refused(line: bytes) -> None:
    with pytest.raises(BadAnswer, match="bad_event"):
        list(EventParser().feed(b"data: " + line + b"\n"))


def test_a_line_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_events, "MAX_EVENT_BYTES", 100)
    parser = EventParser()
    list(parser.feed(b"x" * 100))
    with pytest.raises(BadAnswer, match="bad_event"):
        list(parser.feed(b"x"))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from(
    ["type", "delta", "message", "usage", "model", "text", "text_delta", "message_start",
     "message_delta", "message_stop", "content_block_start", "content_block_delta",
     "content_block", "stop_reason", "input_tokens"]
)  # fmt: skip
shapes = st.recursive(
    known | st.none() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known, inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(st.dictionaries(known, shapes | json_values, max_size=4)))
def test_events_of_any_shape_are_read_or_refused(events: list[dict[str, Any]]) -> None:
    transcript = Transcript("m", {})
    with suppress(BadAnswer):
        for event in events:
            transcript.add(event)
        transcript.answer()


def test_a_missing_total_keeps_its_last_value() -> None:
    transcript = Transcript("asked", {})
    counted = {"input_tokens": 9, "output_tokens": 1, "cache_read_input_tokens": 7}
    last = {"output_tokens": 50, "input_tokens": None}
    for event in [start(counted), delta("ok"), *end("end_turn", last)]:
        transcript.add(event)
    usage = transcript.answer().usage
    assert (usage.input, usage.output, usage.cache_read, usage.cache_write) == (9, 50, 7, 0)


def test_text_in_the_start_of_a_block_counts() -> None:
    transcript = Transcript("asked", {})
    opening = {"type": "content_block_start", "content_block": {"type": "text", "text": "Wa"}}
    said = [transcript.add(event) for event in [opening, delta("rm."), *end("end_turn", None)]]
    assert said == ["Wa", "rm.", "", ""]
    assert transcript.answer().text == "Warm."


def test_a_text_delta_without_text_is_refused() -> None:
    event = {"type": "content_block_delta", "delta": {"type": "text_delta"}}
    with pytest.raises(BadAnswer, match="bad_event"):
        Transcript("m", {}).add(event)


def test_the_model_is_the_one_that_answered() -> None:
    transcript = Transcript("asked", {})
    for event in [start({}), delta("ok"), *end("end_turn", {})]:
        transcript.add(event)
    assert transcript.answer().model == "m"


def test_an_endless_text_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claude_events, "MAX_TEXT_CHARACTERS", 100)
    transcript = Transcript("m", {})
    transcript.add(delta("x" * 100))
    with pytest.raises(BadAnswer, match="too_long"):
        transcript.add(delta("x"))


@pytest.mark.finding(7)
def test_a_surrogate_pair_may_be_cut_between_two_deltas() -> None:
    """As the SDK accepts it: the same answer again would be cut and paid for again."""
    raw = b"".join(b"data: %b\n" % json.dumps(delta(half)).encode() for half in "\ud83c\udf21")
    parser, transcript = EventParser(), Transcript("m", {})
    assert [transcript.add(event) for event in parser.feed(raw)] == ["", "\U0001f321"]


@pytest.mark.finding(7)
def test_half_a_surrogate_pair_that_stays_alone_is_replaced() -> None:
    transcript = Transcript("m", {})
    told = [transcript.add(event) for event in [delta("a\ud83c"), *end("end_turn", None)]]
    assert told == ["a", "", "\ufffd"]
    assert transcript.answer().text == "a\ufffd"
