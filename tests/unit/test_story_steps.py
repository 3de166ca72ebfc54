"""Lines of a story as versions and strangers may have written them, and notes of attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.ledger.attempt_note import (
    MOST_CALLS,
    MOST_LEFT_OUT,
    AttemptNote,
    NotedRecall,
)
from afterword.shared.ledger.story_records import StepKind
from afterword.shared.ledger.story_steps import read_story

SINCE = datetime(2026, 11, 30, tzinfo=UTC)
MS = round(SINCE.timestamp() * 1000)

WORDS = st.sampled_from(
    [
        "claim",
        "snooze",
        "reply",
        "settle",
        "store",
        "1",
        "-",
        "retried",
        "stored",
        "",
        "~",
        "9" * 30,
    ]
)
LINES = st.lists(WORDS, max_size=7).map(" ".join)


def note() -> AttemptNote:
    """Return a note of a whole attempt."""
    found = AttemptNote()
    found.recall = NotedRecall("fresh", "", 7, 5, 1, 40, (("m6", "no_place"),))
    found.add_call("claude", "req_1", "", 0.8)
    return found


@given(st.lists(st.one_of(LINES, LINES.map(f"{MS} ".__add__), st.text(max_size=40)), max_size=8))
def test_whatever_stands_in_a_story_is_read_or_left_out(lines: list[str]) -> None:
    told = read_story("\n".join(lines), SINCE)

    assert all(step.kind in StepKind for step in told.steps)


@given(st.text(max_size=60))
def test_whatever_stands_in_a_note_is_read_or_left_out(text: str) -> None:
    read = AttemptNote.read(text)

    assert (read.recall, read.calls) == (None, []) or text


def test_a_line_of_a_newer_version_hides_no_other() -> None:
    story = f"{MS} claim 1 host:1\n{MS + 5} pondered 1 deeply\n{MS + 9} settle gilded - 1 -"

    told = read_story(story, SINCE)

    assert [step.kind for step in told.steps] == [StepKind.CLAIMED]
    assert told.incomplete


def test_a_note_is_read_as_it_was_written() -> None:
    read = AttemptNote.read(note().text)

    assert (read.recall, read.calls) == (note().recall, note().calls)
    assert AttemptNote().text == ""


def test_what_an_attempt_did_stands_where_it_happened() -> None:
    story = f"{MS} claim 2 host:1\n{MS + 1000} reply 2 {note().text}"

    claimed, recalled, called, replied = read_story(story, SINCE - timedelta(seconds=3)).steps

    assert claimed.duration_s == 3
    assert recalled.at == SINCE + timedelta(milliseconds=40)
    assert called.at == SINCE + timedelta(milliseconds=840)
    assert (replied.duration_s, replied.worker) == (1, "host:1")


def test_who_is_capped_or_passed_over_waits_for_a_worker_all_the_time() -> None:
    story = f"{MS} cap tenant_running\n{MS + 2000} turn\n{MS + 5000} claim 1 host:1"

    capped, passed_over, claimed = read_story(story, SINCE - timedelta(seconds=1)).steps

    assert (capped.kind, capped.reason, capped.duration_s) == (
        *(StepKind.CAPPED, "tenant_running", 2),
    )
    assert (passed_over.kind, passed_over.duration_s) == (StepKind.PASSED_OVER, 3)
    assert claimed.duration_s == 6


@pytest.mark.parametrize("name", ["m" * 500, "a\nb", "\u2028x"])
def test_a_note_stays_short_and_on_its_line_whatever_a_provider_says(name: str) -> None:
    found = AttemptNote()
    found.recall = NotedRecall(
        "degraded", "over_budget", 9, 0, 0, 1, (("i" * 36, "low_score"),) * MOST_LEFT_OUT
    )
    for number in range(20):
        found.add_call(name, name, f"code_{number}", 1.0)

    assert len(found.text) < 1600
    assert "\n" not in found.text
    assert len(found.calls) == MOST_CALLS
    assert [call.code for call in found.calls][::4] == ["code_0", "code_19"]
