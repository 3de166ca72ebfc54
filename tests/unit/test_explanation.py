"""A story in sentences: every reason that there is has words, and what is usual says nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from afterword.producer.admin import explanation
from afterword.producer.admin.explanation import explained
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.story_records import (
    JobStory,
    MemoryLeftOut,
    StepKind,
    StoryStep,
)
from afterword.shared.lifecycle import JobState, TurnState
from tests.conftest import ROOT

AT = datetime(2026, 5, 8, tzinfo=UTC)
STORY = JobStory(
    job_id="j00_1", tenant="default", user_id="ann", conversation_id=None,
    state=JobState.SUCCEEDED, turn=TurnState.STORED, code=None, turn_code=None, created_at=AT,
    ended_at=AT, waits_for=None, waits_until=None, steps=(), steps_left_out=False, memory="fresh",
    memories=(), left_out=(), memory_ids=(), replay_of=None, replayed_as=None,
)  # fmt: skip


def step(kind: StepKind, reason: str = "", **more: object) -> StoryStep:
    return replace(StoryStep(AT, kind, reason), **more)  # type: ignore[arg-type]


def words(story: JobStory) -> str:
    return " ".join(line.text for line in explained(story))


def test_what_is_as_usual_is_not_told() -> None:
    usual = (StepKind.ACCEPTED, StepKind.CLAIMED, StepKind.RECALLED, StepKind.REPLIED)
    brief = (step(StepKind.CAPPED, duration_s=0.2), step(StepKind.PASSED_OVER, duration_s=0.9))
    steps = (*map(step, usual), *brief)
    assert explained(replace(STORY, steps=steps)) == []


def test_every_reason_for_not_storing_has_words() -> None:
    page = (ROOT / "docs/reference/codes.md").read_text()
    section = page.partition("## Why a turn is not stored\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == set(explanation._NOT_STORED)


def test_every_order_that_lets_work_wait_has_words() -> None:
    letting = set(OrderKind) - {OrderKind.LIMITS, OrderKind.DRAIN}
    assert set(explanation._ORDERS) == {str(kind) for kind in letting}


@pytest.mark.parametrize("reason", ["no_place", "low_score", "repeat", "no_room"])
def test_every_memory_that_was_left_out_says_why(reason: str) -> None:
    said = words(replace(STORY, left_out=(MemoryLeftOut("m1", reason),)))
    assert said.startswith("Memory m1 was found and not given to the model: ")
    assert reason not in said


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"state": JobState.FAILED, "code": "too_large", "turn": TurnState.NONE},
         "There was no reply: too_large."),
        ({"memory": "degraded", "steps": (step(StepKind.RECALLED, "recall_queue"),)},
         "its worker had more searches"),
        ({"memory": "degraded", "steps": (step(StepKind.RECALLED, "overloaded"),)},
         "a part of it: overloaded."),
        ({"memory": "degraded", "steps": (step(StepKind.RECALLED),)},
         "not every memory could be read"),
        ({"steps": (step(StepKind.PARKED, "pause-memories"),)},
         "It had to wait: an operator paused writes to memory."),
        ({"steps": (step(StepKind.LANE_WAITS, "message_batch"),)},
         "could be stored for a time: its facts were extracted in a message batch"),
        ({"steps": (step(StepKind.LANE_WAITS, "store_busy"),)}, "for a time: store_busy."),
        ({"steps": (step(StepKind.CAPPED, "user_running", duration_s=90.0),)},
         "It had to wait 1.5 min: its user ran as many jobs as it may."),
        ({"steps": (step(StepKind.PASSED_OVER),)},
         "It had to wait: it was the turn of another tenant."),
        ({"turn": TurnState.PENDING, "waits_for": "a memory worker"},
         "is not in memory yet: it waits for a memory worker."),
        ({"turn": TurnState.NOTHING, "turn_code": "a_newer_one"}, "is not in memory: a_newer_one."),
        ({"turn": TurnState.NONE, "turn_code": "memory_off"},
         "was not to be remembered: memory is off."),
        ({"turn": TurnState.DEAD, "turn_code": "not_accepted"}, "is a dead letter: not_accepted."),
        ({"steps": (step(StepKind.WAITED_BEHIND, "store_busy", duration_s=90.0, about="j00_2"),)},
         "had to wait 1.5 min for an earlier turn of the same user (store_busy):"),
    ],
)  # fmt: skip
def test_a_cause_is_told_in_words(changes: dict[str, object], said: str) -> None:
    assert said in words(replace(STORY, **changes))  # type: ignore[arg-type]


def test_a_turn_that_is_dead_is_told_once() -> None:
    buried = step(StepKind.BURIED, "not_accepted")
    dead = replace(STORY, turn=TurnState.DEAD, turn_code="not_accepted", steps=(buried,))
    assert len(explained(dead)) == 1
    assert "It could not be stored: not_accepted." in words(replace(STORY, steps=(buried,)))


def test_a_sentence_about_another_job_leads_to_it() -> None:
    behind = step(StepKind.WAITED_BEHIND, about="j00_2")
    (line,) = explained(replace(STORY, steps=(behind, step(StepKind.MODEL_CALLED, about="m"))))
    assert line.about == "j00_2"
