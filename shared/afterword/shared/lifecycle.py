"""The two lives, a job's and a turn's: their states and allowed steps, in one pure place.

The Lua scripts are the only ones that take these steps; a state machine in the tests walks
both side by side and compares them after every step.
"""

from __future__ import annotations

from enum import StrEnum

from afterword.shared.errors import IllegalStep


class JobState(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """True when the job has ended: it never leaves this state (promise I1)."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class TurnState(StrEnum):
    """Where a turn is on its way into memory."""

    AWAITED = "awaited"
    PENDING = "pending"
    WRITING = "writing"
    STORED = "stored"
    NOTHING = "nothing"
    SKIPPED = "skipped"
    DEAD = "dead"
    ERASED = "erased"
    NONE = "none"

    @property
    def settled(self) -> bool:
        """True when nothing is left to do, short of a replay."""
        return self not in (TurnState.AWAITED, TurnState.PENDING, TurnState.WRITING)


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
    TurnStep.DROP: (frozenset({TurnState.AWAITED}), frozenset({TurnState.NONE})),
    TurnStep.BEGIN: (
        frozenset({TurnState.PENDING, TurnState.WRITING}),  # writing: its writer was lost
        _WRITING,
    ),
    TurnStep.SETTLE: (
        _WRITING,
        frozenset({TurnState.STORED, TurnState.NOTHING, TurnState.SKIPPED}),
    ),
    TurnStep.SNOOZE: (_WRITING, frozenset({TurnState.PENDING})),
    TurnStep.RETRY: (_WRITING, frozenset({TurnState.PENDING})),
    TurnStep.BURY: (_WRITING, frozenset({TurnState.DEAD})),
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
