"""Dead letters, the filter that selects them, and the runs that replay them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field

from afterword.shared.arguments import Id, Limit, Moment, Seconds, checked_record
from afterword.shared.errors import Fault, InvalidRequest
from afterword.shared.ledger.records import json_object
from afterword.shared.lifecycle import TurnState

_MOST = 1_000_000


class DeadLetterKind(StrEnum):
    """What was given up.

    `memory`: a turn that has its reply and could not be stored. `reply`: a job that failed.
    """

    MEMORY = "memory"
    REPLY = "reply"


@dataclass(frozen=True, slots=True)
class DeadLetterRef:
    """A dead letter as it was at one moment.

    It is replayed or discarded only if it has not been replayed since.
    """

    id: str
    kind: DeadLetterKind
    replays: int

    def __str__(self) -> str:
        """Return the form in which a run stores it."""
        return f"{self.id} {self.kind} {self.replays}"

    @classmethod
    def read(cls, text: str) -> Self:
        """Read the form in which a run stores it."""
        letter_id, kind, replays = text.split(" ")
        return cls(letter_id, DeadLetterKind(kind), int(replays))


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A turn that could not be stored, or a job that failed, with the reason."""

    id: str
    """The id of the job."""

    kind: DeadLetterKind
    """Which of the two it is."""

    tenant: str
    """The tenant of the user."""

    user_id: str
    """The user."""

    submitted_at: datetime
    """When the message was submitted."""

    failed_at: datetime
    """When it failed for the first time."""

    buried_at: datetime
    """When it was given up."""

    code: str
    """Why: the error code of the last attempt, a fixed word."""

    fault: str
    """Whose failure it was: `provider`, `operator` or `request`."""

    attempts: int
    """How many attempts were made."""

    snoozes: int
    """How often it waited for a provider, which spends no attempt."""

    replays: int
    """How often it was replayed before."""

    worker_version: str
    """The version of the worker that gave it up."""

    event_id: str | None
    """The id of the add at hosted mem0, if there was one."""

    record_version: int
    """The version of the stored record."""

    size: int
    """The bytes of the message and the reply."""

    replayed_as: str | None = None
    """The job that took its place, if a failed job was replayed."""

    message: str | None = None
    """What the user said; only if content was requested."""

    reply: str | None = None
    """What was replied; only if content was requested."""

    @property
    def ref(self) -> DeadLetterRef:
        """Return the reference that `replay` and `discard` take."""
        return DeadLetterRef(self.id, self.kind, self.replays)


@checked_record
class DeadLetterFilter:
    """Selects the dead letters that match every given field; without a field, all of them.

    Raises `InvalidRequest` naming a field that is empty, of another type or out of its range.
    """

    ids: Annotated[tuple[Id, ...], Field(strict=False, min_length=1)] | None = None
    """Their ids."""

    kind: Annotated[DeadLetterKind, Field(strict=False)] | None = None
    """Turns or jobs."""

    tenant: Id | None = None
    """The tenant, exactly."""

    user_id: Id | None = None
    """The user id, exactly."""

    since: Moment | None = None
    """Buried at this time or later."""

    until: Moment | None = None
    """Buried before this time."""

    fault: Annotated[Fault, Field(strict=False)] | None = None
    """Whose failure it was."""

    code: Id | None = None
    """Text that the error code contains, in upper or lower case."""

    older_than_s: Seconds = 0.0
    """Buried at least this many seconds ago."""

    worker_version: Id | None = None
    """Given up by this version of the worker, exactly."""

    limit: Limit | None = None
    """How many at most; those buried first are taken."""

    def __post_init__(self) -> None:
        if self.since and self.until and self.since >= self.until:
            raise InvalidRequest("since", "must be before until")

    @property
    def matches_all(self) -> bool:
        """Return whether no field is given, so that every dead letter matches."""
        return not self.to_dict()

    def matches(self, letter: DeadLetter, now: datetime) -> bool:
        """Return whether a dead letter matches, apart from `limit`; `now` is the ledger's time."""
        pairs = (
            (self.kind, letter.kind),
            (self.tenant, letter.tenant),
            (self.user_id, letter.user_id),
            (self.fault, letter.fault),
            (self.worker_version, letter.worker_version),
        )
        return (
            all(wanted is None or wanted == found for wanted, found in pairs)
            and (self.ids is None or letter.id in self.ids)
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
        """Return the given fields as JSON values."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value
        }


class ReplayOutcome(StrEnum):
    """What became of a dead letter that a run was to replay.

    `waiting`: it was replayed and has not settled. `stored`, `nothing`, `skipped`: the turn settled
    in this state. `answered`: the new job has its reply. `cancelled`: the new job was cancelled.
    `dead`: it is a dead letter again. `refused`: it was no dead letter any more. `erased`: its user
    was erased. `gone`: its retention time was over. The last three were not replayed.
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
    """The state of a run.

    `dry`: it was not applied. `running`: its operator drives it, or was killed. `stopped`: it
    stopped by itself, for its `reason`. `aborted`: somebody stopped it. `done`: everything has
    settled. All but `dry` and `done` runs can be resumed.
    """

    DRY = "dry"
    RUNNING = "running"
    STOPPED = "stopped"
    ABORTED = "aborted"
    DONE = "done"


@checked_record
class ReplayPace:
    """How fast a run goes, and when it stops by itself. Each number may be up to 1,000,000."""

    rate: Annotated[float, Field(ge=0.001, le=_MOST, allow_inf_nan=False)] = 5.0
    """Dead letters to replay in a second, at least 0.001."""

    canary: Annotated[int, Field(ge=0, le=_MOST)] = 1
    """How many are replayed first; the rest waits until they have settled."""

    max_dead: Annotated[int, Field(ge=1, le=_MOST)] = 10
    """The run stops once so many were buried again."""

    stall_timeout_s: Annotated[float, Field(ge=1, le=_MOST, allow_inf_nan=False)] = 300.0
    """The run stops once nothing has settled for so many seconds."""


@dataclass(frozen=True, slots=True)
class ReplayRun:
    """A replay: who started it, what it takes, and how far it is."""

    id: str
    """The id of the run; empty if it was not applied."""

    by: str
    """Who started it."""

    started_at: datetime
    """When it was started."""

    updated_at: datetime
    """When its operator last recorded a step."""

    filter: dict[str, Any]
    """The filter of its plan, as JSON values."""

    pace: ReplayPace
    """How fast it goes, and when it stops."""

    state: ReplayState
    """The state of the run."""

    reason: str
    """Why it stopped: a fixed word, or who aborted it."""

    dead_letters: int
    """How many dead letters it takes."""

    canary_passed: bool
    """Whether the canary has settled well."""

    left: int = field(init=False)
    """How many were not replayed yet."""

    outcomes: dict[ReplayOutcome, int] = field(default_factory=dict)
    """How many dead letters have which outcome."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "left", self.dead_letters - sum(self.outcomes.values()))


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """An entry of the audit: something that an operator did, or the result of it."""

    id: str
    """The id of the entry."""

    at: datetime
    """When it was recorded."""

    by: str
    """Who did it."""

    action: str
    """What was done, such as `replay`, `discard`, `forget` or `memory_edit`."""

    run_id: str
    """The run, or the token of the action that it belongs to."""

    details: dict[str, Any]
    """The filter and the counts, as JSON values."""


def audit_entry(entry_id: str, fields: dict[str, str]) -> AuditEntry:
    """Read an entry of the audit."""
    return AuditEntry(
        id=entry_id,
        at=datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC),
        by=fields["by"],
        action=fields["action"],
        run_id=fields.get("run", ""),
        details=json_object(fields.get("details") or "{}"),
    )
