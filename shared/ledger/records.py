"""What the ledger gives back, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


def moment(milliseconds: str | float) -> datetime:
    """Return Redis' milliseconds as an aware UTC time."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one submit: `new` is false if the same request was accepted before."""

    job_id: str
    new: bool


@dataclass(frozen=True, slots=True)
class PastTurn:
    """A turn that was answered before: from the conversation, or not yet in memory."""

    id: str
    at: datetime
    user_text: str
    reply_text: str


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer one job, until its lease runs out or a newer fence exists."""

    job_id: str
    fence: str
    attempt: int
    snoozes: int
    body: str
    lane: str
    remembered: bool
    created_ms: int
    claimed_ms: int
    deadline_ms: int
    overlay: tuple[PastTurn, ...] = ()
    history: tuple[PastTurn, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A turn in its lane, to be stored; `attempts` counts those begun before."""

    id: str
    at: datetime
    user_text: str
    reply_text: str
    conversation_id: str | None
    attempts: int
    snoozes: int
    event_id: str | None


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """The right to write one user's memories, oldest turns first."""

    lane: str
    fence: str
    turns: tuple[WaitingTurn, ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A turn that was given up, with all that is known of why."""

    id: str
    tenant: str
    user_id: str
    at: datetime
    buried_at: datetime
    code: str
    blame: str
    attempts: int
    replays: int
    worker_version: str
    event_id: str | None
    message: str
    reply: str


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found due."""

    expired: int = 0
    woken: int = 0
    taken_back: int = 0
    hinted_again: int = 0


@dataclass(frozen=True, slots=True)
class AgendaCount:
    """How many ids of one agenda are where; `messages` is -1 if the broker is elsewhere."""

    name: str
    hinted: int
    waiting: int
    leased: int
    oldest_hint_at: datetime | None
    messages: int


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker and when it last swept."""

    name: str
    queue: str
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Overview:
    """What is open, late and dead in one shard."""

    at: datetime
    open_jobs: int
    dead_letters: int
    workers: tuple[WorkerSeen, ...]
    counts: dict[str, int]
    agendas: tuple[AgendaCount, ...]
