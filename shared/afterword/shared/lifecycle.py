"""The states of a job and of its turn.

Only the Lua scripts change them; `docs/explanation/lifecycle.md` shows the steps between them.
"""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Return whether the job has ended: it never leaves this state (promise I1)."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class TurnState(StrEnum):
    """The state of a turn on its way into memory."""

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
        """Return whether nothing is left to do, short of a replay."""
        return self not in (TurnState.AWAITED, TurnState.PENDING, TurnState.WRITING)
