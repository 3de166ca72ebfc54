"""Dead letters, how they are chosen, and what becomes of those that are replayed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.lifecycle import TurnState


class DeadLetterKind(StrEnum):
    """What was given up: the memory of a turn that was answered, or the reply to a job."""

    MEMORY = "memory"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class DeadLetterRef:
    """A letter as it was chosen: replayed only if it has been replayed no more often since."""

    id: str
    kind: DeadLetterKind
    replays: int

    def __str__(self) -> str:
        """Return what a run keeps of it."""
        return f"{self.id} {self.kind} {self.replays}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Return what a run has kept."""
        letter_id, kind, replays = text.split(" ")
        return cls(letter_id, DeadLetterKind(kind), int(replays))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A turn or a job that was given up, with all that is known of why.

    A job that was replayed says as which one. `size` is that of the
    message and the reply, in bytes; both are given only when content is asked for.
    """

    id: str
    kind: DeadLetterKind
    tenant: str
    user_id: str
    submitted_at: datetime
    failed_at: datetime
    buried_at: datetime
    code: str
    fault: str
    attempts: int
    snoozes: int
    replays: int
    worker_version: str
    event_id: str | None
    record_version: int
    size: int
    replayed_as: str | None = None
    message: str | None = None
    reply: str | None = None

    @property
    def ref(self) -> DeadLetterRef:
        """Return what is needed to replay or discard it as it is now."""
        return DeadLetterRef(self.id, self.kind, self.replays)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters: those that all fields agree to; one that is not given agrees to all.

    `since` and `until` are times of the burial, the second not included; `code` is a text in the
    error code, whatever its case; `older_than_s` is the age since the burial. `limit` is the most
    letters, oldest burial first. Raises `InvalidRequest` naming the field.
    """

    ids: tuple[str, ...] = ()
    kind: DeadLetterKind | None = None
    tenant: str | None = None
    user_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    fault: Fault | None = None
    code: str | None = None
    older_than_s: float = 0.0
    worker_version: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what can only be a slip."""
        for name in ("tenant", "user_id", "code", "worker_version"):
            if getattr(self, name) == "":
                raise InvalidRequest(name, "must not be empty")
        for name in ("since", "until"):
            _check_aware(name, getattr(self, name))
        if self.since and self.until and self.since >= self.until:
            raise InvalidRequest("since", "must be before until")
        if not 0 <= self.older_than_s < timedelta.max.total_seconds():
            raise InvalidRequest("older_than_s", "must be a number of seconds, not below 0")
        if self.limit is not None and self.limit < 1:
            raise InvalidRequest("limit", "must be at least 1")

    @property
    def matches_all(self) -> bool:
        """Return whether nothing at all is said of which letters."""
        return not self.to_dict()

    def matches(self, letter: DeadLetter, now: datetime) -> bool:
        """Return whether the letter is one of them, its number aside."""
        asked = (
            (self.kind, letter.kind),
            (self.tenant, letter.tenant),
            (self.user_id, letter.user_id),
            (self.fault, letter.fault),
            (self.worker_version, letter.worker_version),
        )
        return (
            all(wanted is None or wanted == found for wanted, found in asked)
            and (not self.ids or letter.id in self.ids)
            and (self.code or "").lower() in letter.code.lower()
            and self._in_time(letter.buried_at, now)
        )

    def _in_time(self, buried_at: datetime, now: datetime) -> bool:
        return (
            (self.since is None or self.since <= buried_at)
            and (self.until is None or buried_at < self.until)
            and (not self.older_than_s or (now - buried_at).total_seconds() >= self.older_than_s)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return what is asked for, without what is not, as JSON can hold it."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value
        }


def _check_aware(name: str, value: datetime | None) -> None:
    if value is not None and value.utcoffset() is None:
        raise InvalidRequest(name, "must say its time zone")


class ReplayOutcome(StrEnum):
    """What became of a letter that a run was to replay.

    `waiting` was replayed and is on its way. `dead` was buried, or has failed, again. The last
    three were not replayed: it was no dead letter any more, its user was erased, its record gone.
    """

    WAITING = "waiting"
    STORED = TurnState.STORED.value
    NOTHING = TurnState.NOTHING.value
    SKIPPED = TurnState.SKIPPED.value
    ANSWERED = "answered"
    DEAD = TurnState.DEAD.value
    CANCELLED = "cancelled"
    REFUSED = "refused"
    ERASED = TurnState.ERASED.value
    GONE = "gone"


class ReplayState(StrEnum):
    """Where a run is: `stopped` and `aborted` ones can be resumed."""

    DRY = "dry"
    RUNNING = "running"
    STOPPED = "stopped"
    ABORTED = "aborted"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class ReplayPace:
    """How a run goes: so many letters first, then so many a second.

    It stops once `max_dead` were buried again, or once nothing has settled for `stall_timeout_s`.
    """

    rate: float = 5.0
    canary: int = 1
    max_dead: int = 10
    stall_timeout_s: float = 300.0

    def __post_init__(self) -> None:
        """Refuse what cannot go."""
        for name, least in (
            ("rate", 0.001),
            ("canary", 0),
            ("max_dead", 1),
            ("stall_timeout_s", 1),
        ):
            if not least <= getattr(self, name) <= _MOST:
                raise InvalidRequest(name, f"must be from {least} to {_MOST}")


_MOST = 1_000_000


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """A replay as the ledger knows it: who pressed it, for what, and how far it has come.

    `reason` says why it stopped. `updated_at` is when its operator last took a step. `left` counts
    the letters that were not looked at yet.
    """

    id: str
    by: str
    started_at: datetime
    updated_at: datetime
    filter: dict[str, Any]
    pace: ReplayPace
    state: ReplayState
    reason: str
    dead_letters: int
    canary_passed: bool
    left: int = field(init=False)
    outcomes: dict[ReplayOutcome, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Count what is left."""
        object.__setattr__(self, "left", self.dead_letters - sum(self.outcomes.values()))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit: what an operator did, with what came of it once it has ended."""

    id: str
    at: datetime
    by: str
    action: str
    run_id: str
    details: dict[str, Any]


def audit_entry(entry_id: str, fields: dict[str, str]) -> AuditEntry:
    """Read an entry of the audit."""
    return AuditEntry(
        id=entry_id,
        at=datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC),
        by=fields["by"],
        action=fields["action"],
        run_id=fields.get("run", ""),
        details=json.loads(fields.get("details") or "{}"),
    )
