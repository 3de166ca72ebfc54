"""The door of hints: what a queue may hold, and what is read of it."""

from __future__ import annotations

import json

import pytest
from hypothesis import strategies as st

from afterword.shared.hints import MAX_HINT_BYTES, NotAHint, read_hint
from afterword.shared.names import (
    MEMORIES,
    REPLIES,
    RUN_TASK,
    WRITE_TASK,
    lane_id,
    lane_tag,
    memory_key,
    new_job_id,
)
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door
from tests.kit.ledger.hint_messages import hint_message

JOB = new_job_id(0)
HINT = hint_message(RUN_TASK, JOB, f"{JOB}.7", step=3)

pytestmark = pytest.mark.finding(14)


@door("hints", hint=broken(json.loads(HINT)))
def test_a_hint_with_one_field_broken_is_no_hint(hint: Broken) -> None:
    raw = json.dumps(hint.value, separators=(",", ":")).encode()
    try:
        read = read_hint(raw, REPLIES)
    except NotAHint:
        return
    assert read["properties"]["priority"] in (0, 3, 6)
    assert raw.decode() == hint_message(
        RUN_TASK, JOB, f"{JOB}.7", step=read["properties"]["priority"]
    )


@door("bytes of hints", raw=st.binary(max_size=400), at=st.integers(0, len(HINT)))
def test_a_hint_with_some_bytes_changed_is_no_other_message(raw: bytes, at: int) -> None:
    changed = HINT.encode()[:at] + raw + HINT.encode()[at + len(raw) :]
    try:
        read = read_hint(changed, REPLIES)
    except NotAHint:
        return
    again = hint_message(
        RUN_TASK,
        json.loads(read["body"])[0][0],
        read["headers"]["id"],
        step=read["properties"]["priority"],
    )
    assert again.encode() == changed


def test_the_id_of_a_lane_s_hint_names_no_user() -> None:
    lane = lane_id(memory_key("acme", "ann@example.org"), 3)
    hints = [hint_message(WRITE_TASK, lane, f"{lane}.{number}").encode() for number in (7, 8)]

    read = [read_hint(hint, MEMORIES) for hint in hints]

    assert [json.loads(one["body"])[0] for one in read] == [[lane], [lane]]
    shown = [one["headers"]["id"] for one in read]
    assert shown == [f"{lane_tag(lane)}.7", f"{lane_tag(lane)}.8"]
    assert shown == [one["properties"]["delivery_tag"] for one in read]


def test_no_message_is_read_that_is_longer_than_any_hint() -> None:
    with pytest.raises(NotAHint, match="too_large"):
        read_hint(HINT.encode().ljust(MAX_HINT_BYTES + 1), REPLIES)
