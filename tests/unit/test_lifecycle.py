"""The two lives: which steps lead where."""

from __future__ import annotations

import itertools

import pytest

from afterword.shared.errors import IllegalStep
from afterword.shared.lifecycle import JobState, TurnState
from tests.kit.ledger.transitions import (
    JOB_STEPS,
    TURN_STEPS,
    JobStep,
    TurnStep,
    check_job_step,
    check_turn_step,
)


def test_an_ended_job_never_leaves_its_state() -> None:
    """I1: one end."""
    for ended, after in itertools.product(filter(lambda s: s.terminal, JobState), JobState):
        for step in JobStep:
            with pytest.raises(IllegalStep):
                check_job_step(step, ended, after)


def test_every_state_of_a_job_can_be_reached_and_every_open_one_left() -> None:
    starts = set().union(*(before for before, _ in JOB_STEPS.values()))
    ends = set().union(*(after for _, after in JOB_STEPS.values()))

    assert starts == {state for state in JobState if not state.terminal}
    assert ends | {JobState.QUEUED} == set(JobState)


def test_of_the_settled_turns_only_dead_ones_can_be_replayed() -> None:
    for step, (before, _) in TURN_STEPS.items():
        backwards = {state for state in before if state.settled}
        assert backwards <= {TurnState.DEAD} or step is TurnStep.ERASE


def test_an_erased_turn_stays_erased() -> None:
    before, after = TURN_STEPS[TurnStep.ERASE]
    assert before == set(TurnState) - {TurnState.NONE}
    assert after == {TurnState.ERASED}
    ways_out = [step for step, (starts, _) in TURN_STEPS.items() if TurnState.ERASED in starts]
    assert ways_out == [TurnStep.ERASE]


def test_every_turn_can_be_brought_to_an_end() -> None:
    for state in TurnState:
        if not state.settled:
            assert any(state in before for before, _ in TURN_STEPS.values())


def test_only_the_steps_of_the_table_are_allowed() -> None:
    for step, before, after in itertools.product(TurnStep, TurnState, TurnState):
        starts, ends = TURN_STEPS[step]
        if before in starts and after in ends:
            check_turn_step(step, before, after)
            continue
        with pytest.raises(IllegalStep) as caught:
            check_turn_step(step, before, after)
        assert step in str(caught.value)
