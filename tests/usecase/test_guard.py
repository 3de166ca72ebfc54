"""What a reply costs in function calls: no step may call a tenth more than it did."""

from __future__ import annotations

import pytest

from benchmarks import guard
from benchmarks.one_reply import judge_messages

pytestmark = pytest.mark.redis


def test_no_step_of_a_job_calls_a_tenth_more_than_in_the_history() -> None:
    grown = guard.check(guard.measure())
    assert grown == [], (
        "less work, or an entry of `python -m benchmarks.guard --keep` with a reason"
    )


def test_the_history_knows_every_step_that_is_counted() -> None:
    (newest,) = guard.history()[-1:]
    assert newest["calls"].keys() == guard.measure().keys()  # type: ignore[attr-defined]


def test_calls_are_counted_alike_each_time() -> None:
    judge_messages()
    assert guard.count_calls(judge_messages) == guard.count_calls(judge_messages) > 0


@pytest.mark.parametrize(("now", "grown"), [(110, []), (111, ["reply"])])
def test_a_step_has_grown_that_calls_over_a_tenth_more(now: int, grown: list[str]) -> None:
    assert guard.grown_steps({"reply": now, "new": 9}, {"reply": 100}) == grown
