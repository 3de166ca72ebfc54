"""What the ledger returns, as frozen values."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, NamedTuple, TypeVar

from afterword.shared.errors import Fault, InvalidRequest, NewerRecord
from afterword.shared.events import RecordKind, RecordNotRead
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.local_time import local
from afterword.shared.observer import emit

Parsed = TypeVar("Parsed")

#: What stands in a story for a worker that is not known.
NOBODY = "-"


#: What parsing raises on a text that no version so far has written.
_UNREADABLE = (
    ArithmeticError, AttributeError, InvalidRequest, LookupError, OSError, RecursionError,
    TypeError, ValueError,
)  # fmt: skip


def moment(milliseconds: str | float) -> datetime:
    """Return milliseconds since the epoch as an aware UTC time."""
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


def said_at(request: Mapping[str, Any], created_ms: str | float) -> datetime:
    """Return when a message was said: `at` of its request, but not after it was accepted."""
    accepted, said = moment(created_ms), request.get("at")
    return min(datetime.fromisoformat(said), accepted) if said else accepted


def text_of(reply: str) -> str:
    """Return the text of a stored reply; of no reply, since the job was stopped, it is empty."""
    return str(json.loads(reply)["text"]) if reply else ""


def json_object(text: str) -> dict[str, Any]:
    """Return a JSON object that is stored; raise `TypeError` for other JSON."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError("must be an object")
    return found


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Raise `NewerRecord` for a record that does not parse: no version up to this one wrote it."""
    try:
        yield
    except _UNREADABLE:
        raise NewerRecord(name) from None


def readable(
    parse: Callable[..., Parsed], rows: Iterable[Sequence[Any]], kind: RecordKind
) -> Iterator[Parsed]:
    """Yield what rows of a list parse to; one that does not is reported, and hides no other."""
    for row in rows:
        try:
            parsed = parse(*row)
        except _UNREADABLE:
            emit(RecordNotRead, kind=kind)
        else:
            yield parsed


@dataclass(frozen=True, slots=True)
class SubmitResult:
    """The result of a submit; `new` is false if the same request was accepted before."""

    job_id: str
    new: bool


@dataclass(frozen=True, slots=True)
class PastTurn:
    """An earlier turn: of the conversation, or not yet in memory.

    `stop_reason` is known for a turn of the conversation: why the model stopped, or `UNANSWERED`.
    """

    id: str
    at: datetime
    user_text: str
    reply_text: str
    stop_reason: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer one job, until its lease runs out or a newer fence exists.

    With `erasing`, its user is being erased: nothing may be recalled, since it may be erased. A
    replayed job is `created` when the failed one was, and `queued` when it was replayed. `trace` is
    the stored trace context of its caller, `joined` has those of messages that were joined to it,
    one a line. `previous` is the fence of the attempt before this one, `hint` the job that its hint
    named: tenants share the hints. `agenda` says its queue and priority. `lost` is how many bytes
    of a reply the attempt before had published; None unless that was lost with its worker.
    """

    job_id: str
    fence: str
    attempt: int
    snoozes: int
    body: str
    lane: str
    remembered: bool
    created_ms: int
    queued_ms: int
    claimed_ms: int
    deadline_ms: int
    overlay: tuple[PastTurn, ...] = ()
    history: tuple[PastTurn, ...] = ()
    erasing: bool = False
    sequence: int = 0
    trace: str = ""
    joined: str = ""
    previous: str = ""
    lost: int | None = None
    hint: str = ""
    agenda: str = ""

    @property
    def said_at(self) -> datetime:
        """When the message was said: when it was submitted, unless its request says otherwise."""
        return said_at(json.loads(self.body), self.created_ms)

    @property
    def lost_attempt(self) -> LostAttempt | None:
        """The attempt before this one, if that was lost with its worker."""
        if self.lost is None:
            return None
        return LostAttempt(
            self.job_id, self.previous, self.lane, self.body, self.lost, self.overlay, self.history
        )


@dataclass(frozen=True, slots=True)
class LostAttempt:
    """An attempt whose worker is gone: `published` is how many bytes of a reply it published.

    The rest is what its prompt was built of, as far as that is still so.
    """

    job_id: str
    fence: str
    lane: str
    body: str
    published: int
    overlay: tuple[PastTurn, ...] = ()
    history: tuple[PastTurn, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitingTurn:
    """A turn in its lane that is to be stored; `attempts` counts those begun before.

    `reply_text` is empty if its job was stopped.

    `batch` lists the turns it was begun with before, itself included; it is empty if it never was.
    The first turn of a batch has the attempts, snoozes, event and facts of all. `age_s` is the time
    between its submit and the claim, in seconds. `alone` is whether no message batch is to take it.
    """

    id: str
    at: datetime
    user_text: str
    reply_text: str
    conversation_id: str | None
    attempts: int
    snoozes: int
    event_id: str | None
    event_age_s: float = 0.0
    age_s: float = field(default=0.0, compare=False)
    facts: str = ""
    batch: tuple[str, ...] = ()
    imported: bool = False
    timezone: str | None = None
    trace: str = ""
    alone: bool = False

    @property
    def day(self) -> tuple[str | None, date]:
        """The user's time zone, and what day it was there."""
        return self.timezone, local(self.at, self.timezone).date()


@dataclass(frozen=True, slots=True)
class DuplicateCheck:
    """A stored batch that two writers may have added; `memory_ids` are those on record."""

    turn_id: str
    lane: str
    memory_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LaneClaim:
    """The right to write one user's memories, oldest turns first."""

    lane: str
    fence: str
    turns: tuple[WaitingTurn, ...]


@dataclass(frozen=True, slots=True)
class Account:
    """Every job and turn of one tenant by state, and its users whose memory lags behind."""

    tenant: str
    """The tenant; empty for the sum of all."""

    jobs: dict[JobState, int]
    """How many jobs are in which state."""

    turns: dict[TurnState, int]
    """How many turns are in which state."""

    users_behind: int
    """How many users have a turn that waits to be stored."""

    users_late: int
    """How many of them have one that waits for longer than the limit."""

    oldest_s: float
    """How long the oldest of these turns has waited, in seconds."""

    degraded_replies: int = 0
    """How many replies there were without what memory knows, because it could not be searched."""

    turns_without_facts: int = 0
    """In how many turns mem0 found no fact, though they do more than ask or greet."""

    secrets: dict[str, int] = field(default_factory=dict)
    """How many secrets of which kind were found in turns that have been stored since."""


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """A job or turn that is missing from a queue or an index in which its state requires it."""

    job_id: str
    """The job."""

    problem: str
    """What is wrong, in a few fixed words."""


class ErasureState(StrEnum):
    """How far the erasure of a user is."""

    ASKED = "asked"
    """It was requested, and is being carried out."""

    FORGOTTEN = "forgotten"
    """Everything stored is removed; the second pass is still to come."""

    ERASED = "erased"
    """The second pass is over: nothing is left, and nothing can come back."""


class AofRewrite(StrEnum):
    """Whether Redis rewrites its append-only file, so that nothing erased is left in it."""

    BEGUN = "begun"
    """The rewrite has begun."""

    BUSY = "busy"
    """An earlier rewrite is under way: the erasure waits, and asks again."""

    REFUSED = "refused"
    """Redis refused it: run `BGREWRITEAOF` yourself."""


class CommandLogReset(StrEnum):
    """Whether Redis forgot the beginnings of slow and large commands, which hold what was said."""

    RESET = "reset"
    """They are forgotten."""

    REFUSED = "refused"
    """Redis refused it: run `COMMANDLOG RESET` or `SLOWLOG RESET` yourself."""


class MemoryErasure(StrEnum):
    """What became of an erased user's memories; with memory off, mem0 was not asked."""

    FORGOTTEN = "forgotten"
    """mem0 has deleted them."""

    OFF = "off"
    """Memory is off: mem0 was not asked."""


@dataclass(frozen=True, slots=True)
class EraseClaim:
    """The right to erase one user; `state` says how far that is."""

    lane: str
    fence: str
    state: ErasureState


@dataclass(frozen=True, slots=True)
class Erasure:
    """The receipt of an erasure, kept after its end for `RECEIPT_S` seconds.

    `forgotten_at` is when everything was removed; `erased_at` when it was removed once more, after
    the longest time that a writer can take. `memory` says whether mem0 forgot them, or was not
    asked because memory is off. `log` says whether Redis then began to rewrite its append-only
    file, and `command_log` whether it forgot the beginnings of slow commands; if it refused, its
    operator has to. `jobs` counts the job records that were emptied, `ended` those of them that had
    to be ended first, `records` conversations, stories and sums of usage.
    """

    lane: str
    state: ErasureState
    asked_by: str
    asked_at: datetime
    forgotten_at: datetime | None
    erased_at: datetime | None
    memory: MemoryErasure | None
    log: AofRewrite | None
    command_log: CommandLogReset | None
    jobs: int
    ended: int
    records: int


@dataclass(frozen=True, slots=True)
class UnrecognisedMessage:
    """A queue message that is no hint: its size in bytes and its hash, never its content.

    `reason` is a fixed word; `task` is the name of an unknown task, '' otherwise.
    """

    queue: str
    reason: str
    size: int
    sha256: str
    task: str = ""


@dataclass(frozen=True, slots=True)
class QuarantineNote:
    """A note on an unrecognised message."""

    id: str
    at: datetime
    found: UnrecognisedMessage


@dataclass(frozen=True, slots=True)
class SweepCounts:
    """How many records one sweep found due."""

    expired: int = 0
    woken: int = 0
    taken_back: int = 0
    hinted_again: int = 0


@dataclass(frozen=True, slots=True)
class AgendaCount:
    """How many ids of one agenda are in which place.

    `messages` counts those in the queue; it is -1 if the broker is another server. `held`
    were left to a newer version within the last minutes.
    """

    name: str
    hinted: int
    waiting: int
    leased: int
    ready_since: datetime | None
    messages: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class TaskHealth:
    """How a periodic task of a worker is, with the failures in a row since its last success.

    `last_run_s` and `last_success_s` are how long ago its last run, and its last good one, ended;
    None if there was none. It is `late` while one run takes longer than it may.
    """

    name: str
    state: Literal["ok", "failing", "late"]
    failures: int
    last_run_s: float | None
    last_success_s: float | None


@dataclass(frozen=True, slots=True)
class WorkerSeen:
    """A worker, its last heartbeat, and those of its periodic tasks that fail or are late.

    `version` is the version of Afterword that it runs, empty if it did not say. `instance` tells it
    from another process of the same name; it is empty for a version that obeys no orders. `memory`
    is the backend that it uses, and `memory_place` is equal where that is at the same address; both
    are empty if it did not say.
    """

    name: str
    queue: str
    seen_at: datetime
    version: str = ""
    tasks: tuple[TaskHealth, ...] = ()
    instance: str = ""
    draining: bool = False
    memory: str = ""
    memory_place: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    """What is open, late and dead in one shard.

    `dead_turns` and `failed_jobs` are its dead letters; `recent_dead_letters` counts those of the
    last hour. `newest_version` is the newest that records were held for within the last minutes,
    or 0.
    """

    at: datetime
    open_jobs: int
    dead_turns: int
    failed_jobs: int
    recent_dead_letters: int
    workers: tuple[WorkerSeen, ...]
    counts: dict[str, int]
    agendas: tuple[AgendaCount, ...]
    newest_version: int = 0


class Witnessed(NamedTuple):
    """A shard's counter as it was found and as it is now; `older` if it had been higher before."""

    found: int
    newest: int
    older: bool


class GateState(StrEnum):
    """The state of a gate; `doubted` is open, but the next caller should report its outcome."""

    OPEN = "open"
    DOUBTED = "doubted"
    SHUT = "shut"
    OPENING = "opening"


@dataclass(frozen=True, slots=True)
class Gate:
    """A gate that is not open: why, since when, and until when at least.

    `untested_s` is for how many seconds a call could have tested the provider, and none did. A gate
    that an operator shut says who that was, `by`, and why; `until` is None if it stays shut until
    somebody opens it.
    """

    name: str
    state: GateState
    code: str
    fault: Fault
    since: datetime
    until: datetime | None
    untested_s: float = 0.0
    by: str = ""
    reason: str = ""


def gate_shut_by_hand(
    name: str, by: str, reason: str, since: datetime, for_s: float | None
) -> Gate:
    """Return a gate as it is once an operator has shut it."""
    until = since + timedelta(seconds=for_s) if for_s else None
    code = "shut_by_hand"
    return Gate(name, GateState.SHUT, code, Fault.OPERATOR, since, until, by=by, reason=reason)


@dataclass(frozen=True, slots=True)
class GateDecision:
    """A gate's answer to one caller; if refused, `retry_after_s` is its own time to retry."""

    state: GateState
    canary: bool = False
    retry_after_s: float = 0.0
    code: str = ""
    news: bool = False


class CallOutcome(StrEnum):
    """The outcome of calling a provider, as its gate counts it."""

    WORKED = "worked"
    FAILED = "failed"
    SHUT = "shut"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class CallReport:
    """What one caller reports to a gate; `pause_s` is the pause that the provider asks for.

    `worked` says whether other calls of this process worked since its last report. The call began
    `age_s` seconds ago.
    """

    outcome: CallOutcome
    code: str = ""
    fault: Fault = Fault.PROVIDER
    pause_s: float = 0.0
    worked: bool = False
    age_s: float = 0.0
