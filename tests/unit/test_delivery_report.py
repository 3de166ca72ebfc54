"""The report of a fault run names each thing that went wrong, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from afterword.shared.contracts import Event, Reply, Timings, Usage
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.fault_runs.delivery_report import JobOutcome, delivery_report, table


def _reply(text: str) -> Reply:
    return Reply(
        job_id="a", user_id="ann", conversation_id=None, text=text, stop_reason="end_turn",
        model="m", usage=Usage(), memory="fresh", attempts=1,
        timings_ms=Timings(queued=0, recall=0, model=0, total=0),
    )  # fmt: skip


def _event(kind: Any, attempt: int = 1, **fields: Any) -> Event:
    return Event(id="1-1", type=kind, attempt=attempt, **fields)


FINAL = _event("final", reply=_reply("hi there"))
WHOLE = (_event("started"), _event("delta", text="hi "), _event("delta", text="there"), FINAL)
A = JobOutcome("a", "ann", JobState.SUCCEEDED, TurnState.STORED, WHOLE)
B = replace(A, job_id="b")
C = replace(A, job_id="c", lane="bob")


def test_nothing_is_wrong_if_all_is_answered_and_stored_once_in_order() -> None:
    found = delivery_report([A, B, C], ["c", "a", "b"])
    assert not found.wrong
    assert found.accepted == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("outcome", "rows", "what"),
    [
        (replace(A, state=JobState.FAILED), ["a"], "lost"),
        (replace(A, turn=TurnState.PENDING), ["a"], "lost"),
        (replace(A, turn=TurnState.DEAD), ["a"], "lost"),
        (replace(A, events=WHOLE[:-1]), ["a"], "lost"),
        (A, [], "lost"),
        (A, ["a", "x"], "unexpected"),
        (A, ["a", "a"], "doubled_memories"),
        (replace(A, events=(*WHOLE, FINAL)), ["a"], "doubled_replies"),
        (replace(A, events=(*WHOLE, _event("delta", text=""))), ["a"], "doubled_replies"),
        (replace(A, events=(WHOLE[0], WHOLE[2], FINAL)), ["a"], "torn_replies"),
        (replace(A, events=(WHOLE[1], *WHOLE)), ["a"], "torn_replies"),
    ],
)
def test_each_kind_of_wrong_delivery_is_reported_by_name(
    outcome: JobOutcome, rows: list[str], what: str
) -> None:
    assert list(delivery_report([outcome], rows).wrong) == [what]


def test_a_turn_behind_a_later_one_of_its_lane_is_out_of_order() -> None:
    assert delivery_report([A, B, C], ["b", "c", "a"]).out_of_order == {"a"}


def test_a_new_attempt_voids_the_deltas_before_it() -> None:
    second = (
        *WHOLE[:2],
        _event("restart", 2),
        _event("delta", 2, text="hi there"),
        _event("final", 2, reply=_reply("hi there")),
    )
    assert not delivery_report([replace(A, events=second)], ["a"]).wrong


def test_a_lane_left_open_is_reported_as_wrong() -> None:
    assert delivery_report([A], ["a"], ["l00_x"]).wrong == {"left_open": {"l00_x"}}


def test_the_table_sums_up() -> None:
    good, bad = delivery_report([A], ["a"]), delivery_report([A], ["a", "a"])
    lines = table("two runs", [good, bad]).splitlines()
    assert lines[0] == "two runs"
    assert [line.split() for line in lines if "memories" in line] == [["doubled", "memories", "1"]]
    assert [line.split() for line in lines if "accepted" in line] == [["accepted", "2"]]
