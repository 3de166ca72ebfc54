"""Which steps lead a job or a turn from which states to which: what tests hold the scripts to."""

from __future__ import annotations

from enum import StrEnum

from afterword.shared.errors import IllegalStep
from afterword.shared.lifecycle import JobState, TurnState


class JobStep(StrEnum):
    """What can be done with a job."""

    CLAIM = "claim"
    FINISH = "finish"
    FAIL = "fail"
    SNOOZE = "snooze"
    RETRY = "retry"
    CANCEL = "cancel"
    EXPIRE = "expire"


class TurnStep(StrEnum):
    """What can be done with a turn."""

    FINISH = "finish"
    KEEP = "keep"
    DROP = "drop"
    BEGIN = "begin"
    SETTLE = "settle"
    SNOOZE = "snooze"
    RETRY = "retry"
    BURY = "bury"
    REPLAY = "replay"
    DISCARD = "discard"
    ERASE = "erase"


#: Each step of a job: the states it may start from, and the states it may lead to.
JOB_STEPS: dict[JobStep, tuple[frozenset[JobState], frozenset[JobState]]] = {
    JobStep.CLAIM: (
        frozenset({JobState.QUEUED, JobState.RUNNING}),  # running: only with a lapsed lease
        frozenset({JobState.RUNNING, JobState.FAILED, JobState.EXPIRED}),
    ),
    JobStep.FINISH: (frozenset({JobState.RUNNING}), frozenset({JobState.SUCCEEDED})),
    JobStep.FAIL: (frozenset({JobState.RUNNING}), frozenset({JobState.FAILED})),
    JobStep.SNOOZE: (frozenset({JobState.RUNNING}), frozenset({JobState.QUEUED})),
    JobStep.RETRY: (frozenset({JobState.RUNNING}), frozenset({JobState.QUEUED})),
    JobStep.CANCEL: (
        frozenset({JobState.QUEUED, JobState.RUNNING}),
        frozenset({JobState.CANCELLED}),
    ),
    JobStep.EXPIRE: (
        frozenset({JobState.QUEUED, JobState.RUNNING}),
        frozenset({JobState.EXPIRED}),
    ),
}

_WRITING = frozenset({TurnState.WRITING})

#: Each step of a turn: the states it may start from, and the states it may lead to.
TURN_STEPS: dict[TurnStep, tuple[frozenset[TurnState], frozenset[TurnState]]] = {
    TurnStep.FINISH: (
        frozenset({TurnState.AWAITED}),
        frozenset({TurnState.PENDING, TurnState.SKIPPED}),
    ),
    TurnStep.KEEP: (frozenset({TurnState.AWAITED}), frozenset({TurnState.PENDING})),
    TurnStep.DROP: (frozenset({TurnState.AWAITED}), frozenset({TurnState.NONE})),
    TurnStep.BEGIN: (
        frozenset({TurnState.PENDING, TurnState.WRITING}),  # writing: its writer was lost
        _WRITING,
    ),
    TurnStep.SETTLE: (_WRITING, frozenset({TurnState.STORED, TurnState.NOTHING})),
    TurnStep.SNOOZE: (_WRITING, frozenset({TurnState.PENDING})),
    TurnStep.RETRY: (_WRITING, frozenset({TurnState.PENDING})),
    TurnStep.BURY: (
        _WRITING | {TurnState.PENDING},  # pending: an operator buries it
        frozenset({TurnState.DEAD}),
    ),
    TurnStep.REPLAY: (frozenset({TurnState.DEAD}), frozenset({TurnState.PENDING})),
    TurnStep.DISCARD: (frozenset({TurnState.DEAD}), frozenset({TurnState.SKIPPED})),
    TurnStep.ERASE: (
        frozenset(TurnState) - {TurnState.NONE},
        frozenset({TurnState.ERASED}),
    ),
}


def check_job_step(step: JobStep, before: JobState, after: JobState) -> None:
    """Raise `IllegalStep` unless `step` may lead a job from `before` to `after`."""
    allowed_from, allowed_to = JOB_STEPS[step]
    if before not in allowed_from or after not in allowed_to:
        raise IllegalStep(f"job: {step} does not lead from {before} to {after}")


def check_turn_step(step: TurnStep, before: TurnState, after: TurnState) -> None:
    """Raise `IllegalStep` unless `step` may lead a turn from `before` to `after`."""
    allowed_from, allowed_to = TURN_STEPS[step]
    if before not in allowed_from or after not in allowed_to:
        raise IllegalStep(f"turn: {step} does not lead from {before} to {after}")
