"""Words for people that the command line and the console have in common."""

from __future__ import annotations

from datetime import datetime

from afterword.shared.ledger.dead_letter_records import ReplayRun, ReplayState
from afterword.shared.ledger.records import Gate
from afterword.shared.ledger.story_records import StepKind, StoryStep

#: Steps whose duration is how long the job had waited, and how long it waits now.
_WAITED = frozenset({StepKind.CLAIMED, StepKind.STORING})
_PAUSES = frozenset(
    {
        *(StepKind.RELEASED, StepKind.SNOOZED, StepKind.RETRIED, StepKind.POSTPONED),
        *(StepKind.LANE_WAITS, StepKind.PARKED, StepKind.CAPPED, StepKind.PASSED_OVER),
        *(StepKind.SET_ASIDE, StepKind.WAITED_BEHIND),
    }
)

#: What a step is called, if not by its kind with spaces.
_NAMES = {StepKind.SET_ASIDE: "waits behind", StepKind.NEXT: "its turn has come"}


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that it fills."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{max(0.0, seconds):.1f} s"


def exact_duration(seconds: float) -> str:
    """Return a duration, in milliseconds if it is shorter than a second."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def utc_time(moment: datetime) -> str:
    """Return a point in time, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def exact_time(moment: datetime) -> str:
    """Return a point in time to the millisecond, in UTC."""
    return f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03}Z"


def cause(gate: Gate) -> str:
    """Return why a gate is not open, and whose failure that was; or who shut it, and why."""
    if gate.by:
        return f"shut by {gate.by}" + (f": {gate.reason}" if gate.reason else "")
    return f"{gate.code} ({gate.fault})"


def took(step: StoryStep) -> str:
    """Return how long a step took, had waited, or pauses."""
    if step.duration_s is None:
        return ""
    length = exact_duration(step.duration_s)
    if step.kind in _WAITED:
        return f"had waited {length}"
    return f"for {length}" if step.kind in _PAUSES else f"in {length}"


def step_name(step: StoryStep) -> str:
    """Return what a step is called."""
    return _NAMES.get(step.kind, step.kind.replace("_", " "))


def step_facts(step: StoryStep) -> list[str]:
    """Return how long a step took and what else is known of it, each as a few words."""
    known = [f"{name.replace('_', ' ')} {value}" for name, value in step.details.items()]
    return [took(step), *known] if step.duration_s is not None else known


def with_reason(state: str, reason: str | None) -> str:
    """Return a state, and why it is so if that is known."""
    return f"{state} ({reason})" if reason else state


def run_state(run: ReplayRun, now: datetime) -> str:
    """Return the state of a run; why, if it stopped; its last sign of life, if it should run."""
    if run.state is ReplayState.RUNNING:
        return f"running, last step {duration((now - run.updated_at).total_seconds())} ago"
    return with_reason(run.state, run.reason)


def rows_left_out(rows: int) -> str:
    """Return what is said of rows of mem0 that are not shown."""
    return f"{rows} more could not be read, or were another user's"
