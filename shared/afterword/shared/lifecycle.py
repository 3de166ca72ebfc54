"""The states of a job and of its turn.

Only the Lua scripts change them; `docs/explanation/lifecycle.md` shows the steps between them.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    """It waits for a worker, for an earlier message, or for a provider that is down."""

    RUNNING = "running"
    """A worker is generating the reply."""

    SUCCEEDED = "succeeded"
    """It has its reply."""

    FAILED = "failed"
    """It ended without a reply; the code says why. It can be replayed."""

    CANCELLED = "cancelled"
    """It was cancelled, interrupted by a later message, or its user was erased."""

    EXPIRED = "expired"
    """It had no reply when its time was over."""

    @property
    def terminal(self) -> bool:
        """Return whether the job has ended: it never leaves this state (promise I1)."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class TurnState(StrEnum):
    """The state of a turn on its way into memory."""

    AWAITED = "awaited"
    """The job has no reply yet."""

    PENDING = "pending"
    """It waits to be stored."""

    WRITING = "writing"
    """A worker is storing it."""

    STORED = "stored"
    """It is in memory."""

    NOTHING = "nothing"
    """There was nothing in it to remember; the code says why."""

    SKIPPED = "skipped"
    """It is not remembered, by a rule or because it was discarded; the code says why."""

    DEAD = "dead"
    """It could not be stored and is a dead letter; the code says why. It can be replayed."""

    ERASED = "erased"
    """Its user was erased."""

    NONE = "none"
    """There is no turn: memory is off, none was to be made, or the job failed or expired."""

    @property
    def settled(self) -> bool:
        """Return whether nothing is left to do, short of a replay."""
        return self not in (TurnState.AWAITED, TurnState.PENDING, TurnState.WRITING)
