"""What became of one job, step by step, as an operator reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from afterword.shared.contracts import Extraction, MemoryStatus
from afterword.shared.lifecycle import JobState, TurnState


class StepKind(StrEnum):
    """What happened to a job or to its turn."""

    ACCEPTED = "accepted"
    """It was submitted; `details` has its priority."""

    IMPORTED = "imported"
    """A past turn was imported: it was answered elsewhere."""

    SET_ASIDE = "set_aside"
    """It waits until `about`, an earlier message of its conversation, has ended; `duration_s` is
    how long that took."""

    JOINED = "joined"
    """A later message, which had the id `about`, was joined to it; its attempt, if one had begun,
    begins anew."""

    NEXT = "next"
    """It is the first of its conversation now, and waits for a worker."""

    PARKED = "parked"
    """An operator's order lets the job, or the turns of its user, wait; `reason` is its kind, and
    `duration_s` is for how long it did."""

    CAPPED = "capped"
    """Its tenant or its user runs as many jobs as it may (`reason`), so it waits until one of them
    ends; `duration_s` is how long that took."""

    PASSED_OVER = "passed_over"
    """A worker that was free took a job of another tenant, whose turn it was; `duration_s` is how
    long it then took until the next step."""

    HINTED_AGAIN = "hinted_again"
    """Its hint was lost, or nobody took it up in time: it was hinted anew."""

    CLAIMED = "claimed"
    """A response worker began an attempt; `duration_s` is how long the job had waited for it."""

    LEASE_LOST = "lease_lost"
    """The worker of the attempt was not heard of any more, so others may claim the job."""

    RECALLED = "recalled"
    """Memory was searched. `reason` says why that failed or was incomplete; `details` has the
    status of the memories, how many rows were found and given, and how many earlier turns that
    were not stored yet were there for the prompt (`overlay`)."""

    MODEL_CALLED = "model_called"
    """A model was called; `about` is the model, `reason` why it gave no answer, and `details` has
    the provider's request id."""

    RELEASED = "released"
    """The attempt was given back and is not counted: a gate is shut (`reason` is why), or the
    worker stopped. `duration_s` is the pause before the next attempt."""

    SNOOZED = "snoozed"
    """The provider is away or asked for a pause, so the attempt is not counted; as `released`."""

    RETRIED = "retried"
    """The attempt failed and is counted; another one follows after `duration_s`."""

    REPLIED = "replied"
    """The reply was published; `duration_s` is what the attempt took."""

    FAILED = "failed"
    """The job ended without a reply; `details` has whose fault it was, if a worker said so."""

    CANCELLED = "cancelled"
    """The job was cancelled, interrupted by a later message, or its user was erased."""

    EXPIRED = "expired"
    """The job had no reply when its time was over."""

    WAITED_BEHIND = "waited_behind"
    """The turn could not be stored before `about`, an earlier turn of the same user, was settled;
    `reason` is why that one took so long, `duration_s` for how long this one waited because of it,
    and `details` has the state of the other turn."""

    LANE_WAITS = "lane_waits"
    """Nothing of the user can be stored now: mem0's gate is shut; `duration_s` is for how long."""

    STORING = "storing"
    """A memory worker began to store the turn; `about` is the first turn of its batch, if that is
    another one."""

    EXTRACTED = "extracted"
    """Claude extracted facts of the turn, or tried to; `details` has the tokens and the cost."""

    POSTPONED = "postponed"
    """The turn was not stored in this attempt; `details` says whether the attempt is counted."""

    STORED = "stored"
    """The turn is in memory; `details` has how many memories came of it, and how many secrets of
    which kind were replaced."""

    NOTHING = "nothing"
    """There was nothing in the turn to remember."""

    SKIPPED = "skipped"
    """The turn is not remembered, by a rule."""

    BURIED = "buried"
    """The turn could not be stored, and is a dead letter."""

    REPLAYED = "replayed"
    """The dead letter was replayed, by the run or as the job in `about`."""

    DISCARDED = "discarded"
    """The dead letter was discarded."""

    CORRECTED = "corrected"
    """The user edited or deleted memories of the turn."""

    ERASED = "erased"
    """The user was erased: nothing else is known any more."""

    RECALLED_LATER = "recalled_later"
    """A later reply, `about`, was given memories of this turn; `details` says how many."""


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step of a job, or of its turn on the way to memory."""

    at: datetime
    """When it happened, by the clock of Redis."""

    kind: StepKind
    """What happened."""

    reason: str = ""
    """Why: a fixed word, if there is one."""

    attempt: int | None = None
    """The attempt, from 1: to reply, or to store."""

    worker: str | None = None
    """The worker that took the step, as `host:pid`."""

    duration_s: float | None = None
    """How long it took, or how long the pause is, in seconds."""

    about: str | None = None
    """The other job, or the model, that the step is about."""

    details: Mapping[str, str | int | float] = field(default_factory=dict)
    """What else is known, by names that depend on the kind."""


@dataclass(frozen=True, slots=True)
class MemoryGiven:
    """A memory that the reply was given."""

    id: str
    """Its id in mem0."""

    score: float | None
    """How well it fits the message, by the memory backend's own measure; None once the job is no
    longer kept."""

    created_at: datetime | None
    """When it was created, if the memory backend says so and the job is kept."""

    text: str | None = None
    """Its text; only if content was requested."""


@dataclass(frozen=True, slots=True)
class MemoryLeftOut:
    """A memory that the search found and the reply was not given."""

    id: str
    """Its id in mem0."""

    reason: str
    """Why: `no_place` (others fit better, see `AFTERWORD_RECALL_TOP_K`), `low_score`, `repeat` (of
    a newer one, or of the message), `no_room` (the prompt was full, or has its turn itself)."""


@dataclass(frozen=True, slots=True)
class JobStory:
    """What became of one job and of its turn, step by step; and what later came of it.

    It is kept for `AFTERWORD_STORY_RETENTION_S`, and holds no content unless that was requested. Of
    a job with very many steps, some between the first and the last ones are left out.
    """

    job_id: str
    """The job."""

    tenant: str
    """The tenant."""

    user_id: str | None
    """The user; None once the user was erased."""

    conversation_id: str | None
    """The conversation, if any."""

    state: JobState
    """The state of the job."""

    turn: TurnState
    """The state of its turn."""

    code: str | None
    """Why the job failed or was delayed last."""

    turn_code: str | None
    """Why the turn was not stored or was delayed last."""

    created_at: datetime
    """When it was submitted."""

    ended_at: datetime | None
    """When the job ended."""

    waits_for: str | None
    """What the job, or then its turn, waits for now, in words."""

    waits_until: datetime | None
    """Until when, if that is known."""

    steps: tuple[StoryStep, ...]
    """Its steps, the oldest first."""

    steps_left_out: bool
    """Whether there were more steps than are kept."""

    memory: MemoryStatus | None
    """How complete the memories of its reply were; None without a reply."""

    memories: tuple[MemoryGiven, ...]
    """The memories that its reply was given, best first."""

    left_out: tuple[MemoryLeftOut, ...]
    """The best of those that the last search found and the reply was not given, up to 5."""

    memory_ids: tuple[str, ...]
    """The memories that its turn was stored as, less those that its user has deleted."""

    replay_of: str | None
    """The failed job that this one replays, if any."""

    replayed_as: str | None
    """The job that replays this one, if any."""

    message: str | None = None
    """What the user said; only if content was requested."""

    reply: str | None = None
    """What was replied; only if content was requested."""

    extraction: Extraction | None = None
    """What it took to extract facts of its turn; None if nothing was extracted. Of turns that were
    stored together, the first has it."""

    job_kept: bool = True
    """Whether the job itself is still kept (`AFTERWORD_RETENTION_S`); otherwise neither what was
    said nor how well the memories fitted that the reply was given is known."""


@dataclass(frozen=True, slots=True)
class JobListed:
    """One job of a user, in a list."""

    job_id: str
    """The job."""

    created_at: datetime
    """When it was submitted."""

    state: JobState
    """The state of the job."""

    code: str | None
    """Why it failed or was delayed last."""

    turn: TurnState
    """The state of its turn."""

    turn_code: str | None
    """Why the turn was not stored or was delayed last."""

    memory: MemoryStatus | None
    """How complete the memories of its reply were; None without a reply."""

    memories: int
    """How many memories its reply was given."""

    stored: int
    """How many memories its turn was stored as."""

    imported: bool = False
    """Whether it is a past turn that was imported: then it has no job of its own."""


@dataclass(frozen=True, slots=True)
class UserJobs:
    """Some of a user's jobs, the newest first."""

    jobs: tuple[JobListed, ...]
    """The jobs."""

    next: str | None
    """Continues after this page, as `after` of the next call; None if this page is the last."""
