"""Every event that the product reports through `afterword.shared.observer`.

An event is a frozen value of numbers, fixed words and ids: none of its fields can hold a prompt, a
reply, a memory or a key (promise I11). Which job or lane it belongs to stands in the `Context` that
subscribers receive with it, not in the event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from afterword.shared.contracts import MemoryStatus, Usage
from afterword.shared.errors import Fault
from afterword.shared.event_types import Code, Id, Message, Name, Place, TokensTold
from afterword.shared.event_types import Context as Context  # noqa: PLC0414 for subscribers
from afterword.shared.event_types import ObserverEvent as ObserverEvent  # noqa: PLC0414 for subscribers
from afterword.shared.lifecycle import TurnState


def tokens_told(usage: Usage) -> dict[str, int]:
    """Return the fields of a `TokensTold` that say what was used."""
    return {f"{name}_tokens": amount for name, amount in usage}


# Producers


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSubmitted(ObserverEvent):
    """A producer submitted a job, which was accepted: as `accepted_as`, if it was known before."""

    accepted_as: Id


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRefused(ObserverEvent):
    """A producer submitted a job, which was not accepted, or not as far as it knows."""

    error: Code


# Replies


@dataclass(frozen=True, slots=True, kw_only=True)
class JobClaimed(ObserverEvent):
    """A worker took a job on, after it was queued for `queued_s` seconds.

    `fence` names this attempt, and `previous` the one before it, which may have been lost. While
    traces are on, `joined` has the contexts of messages that were joined to its own, one a line.
    """

    queued_s: float
    snoozes: int
    fence: Id = ""
    previous: Id = ""
    joined: Id = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallFinished(ObserverEvent):
    """A reply has its memories: `kept` went into the prompt, `dropped` were found and did not.

    Reported for every attempt, also when memory could not be asked (`degraded`) or is `off`.
    """

    status: MemoryStatus
    kept: int
    dropped: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RecallFailed(ObserverEvent):
    """mem0 was asked and did not answer, or not in time; the reply goes out without memories."""

    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignMemoriesDropped(ObserverEvent):
    """mem0 returned memories of another user; they were dropped."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MalformedMemoriesDropped(ObserverEvent):
    """mem0 returned memories that cannot be read; they were dropped."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCalled(ObserverEvent):
    """A prompt was sent to a model; `canary` if this call decides whether its gate opens."""

    model: Name
    canary: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswered(TokensTold):
    """A model gave a whole answer.

    `first_text_s` is the time to its first piece of text, `duration_s` to its end. `model` is what
    the provider says has answered, `asked_model` the one that was called.
    """

    model: Name
    stop_reason: Code
    first_text_s: float
    duration_s: float
    request_id: Id
    asked_model: Name = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFailed(TokensTold):
    """A model gave no whole answer: the call failed, or was cancelled (`cancelled`).

    Its tokens are what the provider had told of it; the output of a call that was cut off is
    estimated by the text that had come.
    """

    model: Name
    code: Code
    duration_s: float
    request_id: Id


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensWithoutReply(TokensTold):
    """An attempt gave no reply, but the provider had told tokens of it: they count all the same.

    The output of a call that was cut off is estimated by the text that had come.
    `counted` is false if Redis was away or full when they were to be added to the sums of usage.
    """

    counted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LostAttemptCounted(TokensTold):
    """An attempt was lost with its worker: so much counts for it.

    It is an estimate: all of its prompt, and the text that it had published.
    """

    model: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFieldsDropped(ObserverEvent):
    """An answer had fields that cannot be read; its reply goes on without them.

    `fields` names them, such as `output_tokens`, separated by spaces.
    """

    model: Name
    fields: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReplaced(ObserverEvent):
    """A model failed with `code`, and the next of `AFTERWORD_FALLBACK_MODELS` is called."""

    model: Name
    code: Code
    replacement: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyPublished(ObserverEvent):
    """A job has succeeded; `not_remembered` says why its turn is not stored, '' if it is to be.

    `publish_s` is what the step took, and `overhead_s` what the attempt took beside the search for
    memories and the model.
    """

    total_s: float
    not_remembered: Code
    publish_s: float = 0.0
    overhead_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReleased(ObserverEvent):
    """A job waits for `delay_s` seconds, because the gate before its model is shut."""

    code: Code
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSnoozed(ObserverEvent):
    """An attempt failed and does not count; the job is tried again after `delay_s` seconds."""

    code: Code
    fault: Fault
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRetried(ObserverEvent):
    """An attempt failed and counts; the job is tried again after `delay_s` seconds."""

    code: Code
    fault: Fault
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGivenUp(ObserverEvent):
    """A job has failed for good, with this code."""

    code: Code
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class JobReturned(ObserverEvent):
    """A worker that stops gave a job back; no attempt of it was spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOvertaken(ObserverEvent):
    """A worker lost a job: it was cancelled, has expired, was taken over, or was given up.

    Work is given up when its lease cannot be renewed: see `LeasesNotRenewed`.
    """


# Memories


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneClaimed(ObserverEvent):
    """A worker took a user's lane on, with so many turns to store."""

    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneReleased(ObserverEvent):
    """A lane waits for `delay_s` seconds: `code` is that of a shut gate, or `memory_off`."""

    code: Code
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneOvertaken(ObserverEvent):
    """A worker lost a lane that it was writing: it was taken over, or given up.

    Work is given up when its lease cannot be renewed: see `LeasesNotRenewed`.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBegun(ObserverEvent):
    """Somebody began to drive a replay run, or went on with it."""

    run: Id


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetterReplayed(ObserverEvent):
    """A dead letter was put back by a replay run, or the `outcome` says why not.

    `queue` is where it is done again, `replies` or `memories`. While traces are on, `trace` is the
    stored context of its job.
    """

    run: Id
    queue: Code
    outcome: Code
    duration_s: float
    trace: Id = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayEnded(ObserverEvent):
    """A replay run is done, stopped or aborted; or another process drives it now (`taken_over`).

    Or its driver `failed` with an error of the class `code`, and it can be resumed.
    """

    run: Id
    outcome: Code
    code: Code = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBegun(ObserverEvent):
    """An attempt to store a turn, and `turns - 1` that follow it, was recorded and begins.

    With `unknown_outcome`, an earlier attempt may have stored it: mem0 is asked first. While traces
    are on, `steps` names what put each turn into its lane: `publish/<job>/<traceparent>`, or `send`
    for a job that was stopped.
    """

    turns: int
    unknown_outcome: bool
    steps: Id = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsTranslated(ObserverEvent):
    """An extraction model wrote facts in another language than the user; they are stored so."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBatchSent(ObserverEvent):
    """A worker sent the prompts that extract so many turns as one message batch."""

    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBatchEnded(ObserverEvent):
    """A message batch of so many turns has its results, `age_s` seconds after it was opened.

    Those that are not `answered` are extracted by a call of their own.
    """

    turns: int
    answered: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageBatchFailed(ObserverEvent):
    """A message batch could not be sent, looked at or deleted; so many turns wait longer for it."""

    code: Code
    fault: Fault
    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAnswered(ObserverEvent):
    """mem0 answered an attempt to store turns, or could not in time, after `duration_s` seconds.

    `outcome` is `stored`, `nothing`, `pending` (mem0 works on it) or `failed`. What is only looked
    for, because an earlier attempt may have stored it, is timed as well.
    """

    outcome: Code
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnSettled(ObserverEvent):
    """A turn, and those added with it, has ended: stored, or `code` says why nothing of it is.

    `age_s` is how old the oldest of them was when its lane was claimed, in seconds.
    """

    outcome: TurnState
    code: Code
    turns: int
    memories: int
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionPaid(TokensTold):
    """An attempt to store turns has ended, and this is what a call to extract their facts used.

    The provider had told so much of it; a call that failed, or was cut off, counts all the same.
    Or it is what one answer of a message batch used (`in_batch`), which costs half.
    """

    model: Name
    in_batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretsFound(ObserverEvent):
    """A batch that is stored now held secrets of a kind, which `AFTERWORD_REDACTION` is about."""

    kind: Name
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAccepted(ObserverEvent):
    """mem0 took an add and works on it; its outcome is asked for after `delay_s` seconds."""

    turns: int
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnPostponed(ObserverEvent):
    """An attempt to store a turn failed; it is tried again after `delay_s` seconds.

    `counted` is whether that spent an attempt.
    """

    turns: int
    code: Code
    fault: Fault
    delay_s: float
    counted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnReturned(ObserverEvent):
    """A worker that stops gave a turn back; no attempt of it was spent."""

    turns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchSplit(ObserverEvent):
    """A batch was refused, so its turns are stored one by one, after `delay_s` seconds."""

    turns: int
    code: Code
    fault: Fault
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnBuried(ObserverEvent):
    """A turn could not be stored and is a dead letter now."""

    code: Code
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplicatesRemoved(ObserverEvent):
    """A turn that several writers had stored is stored once now."""

    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairPostponed(ObserverEvent):
    """mem0 could not say whether a turn is stored more than once; it is asked again."""

    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryRequestAnswered(ObserverEvent):
    """A request about a user's memories is answered; `code` says why it was refused, if it was."""

    action: Code
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class LateCopiesRemoved(ObserverEvent):
    """A writer had added to a turn whose user had changed its memories before; that is removed."""

    copies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UserForgotten(ObserverEvent):
    """The first half of an erasure is done; it is repeated after `delay_s` seconds, for good."""

    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasurePostponed(ObserverEvent):
    """mem0, or Redis that rewrites its log, holds an erasure up; it is tried again."""

    code: Code
    delay_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UserErased(ObserverEvent):
    """An erasure is complete; `log` and `command_log` say what Redis did with its logs."""

    memory: Code
    log: Code
    command_log: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Mem0Failed(ObserverEvent):
    """mem0's open-source code raised an error, at this line of it."""

    error: Code
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendUnavailable(ObserverEvent):
    """Something that self-hosted memory needs does not work at the start; it is tried again."""

    backend: Name
    error: Code


# Replies and memories


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(ObserverEvent):
    """A bug of ours: an error that no rule expects, at this line of our code."""

    error: Code
    place: Place


# Gates and leases


@dataclass(frozen=True, slots=True, kw_only=True)
class GateClosed(ObserverEvent):
    """A provider is not called any more, by the whole fleet; reported by who saw it happen.

    `setting` is what the operator has to correct, '' if that is not known.
    """

    gate: Name
    code: Code
    fault: Fault
    setting: Name = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GateCanarySent(ObserverEvent):
    """A gate that is shut lets one call pass, to see whether the provider is back."""

    gate: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOpened(ObserverEvent):
    """A provider that was not called is back; reported by the worker whose call succeeded."""

    gate: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class GateUnknown(ObserverEvent):
    """Redis did not say in time how a gate stands; the work goes on as if it were open."""

    gate: Name
    error: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class LeasesNotRenewed(ObserverEvent):
    """Redis did not renew the leases of this worker in time; the work on them is given up."""

    count: int
    error: Code


# Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFinished(ObserverEvent):
    """A sweep put right what time has made due.

    Jobs that expired, ids that waited and were woken, work of lost workers that was taken back,
    and lost hints that were sent again.
    """

    expired: int
    woken: int
    taken_back: int
    hinted_again: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InconsistencyFixed(ObserverEvent):
    """A job or turn was not where its state says, and was put there."""

    kind: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationFinished(ObserverEvent):
    """All jobs and turns were compared with where they must be; so many were put right."""

    fixed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerUnfit(ObserverEvent):
    """The ledger's Redis can be read, but `problem` makes it unfit: nothing is written to it."""

    problem: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStateNotKept(ObserverEvent):
    """What was seen of the ledger cannot be kept in `AFTERWORD_STATE_DIR`; the worker goes on."""

    error: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerReplaced(ObserverEvent):
    """Redis holds a new ledger where this machine saw another one, up to the number `seen`."""

    seen: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRolledBack(ObserverEvent):
    """Redis lost what was written last: its counter went back. Used numbers are skipped."""

    seen: int
    found: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerFailed(ObserverEvent):
    """A callback for a message of Redis raised an error; the other callbacks were called."""

    error: Code
    place: Place


# Broker


#: What a list holds of which some may not be readable.
RecordKind = Literal[
    "access key",
    "audit entry",
    "dead letter",
    "gate",
    "job",
    "order",
    "quarantine note",
    "replay outcome",
    "replay run",
    "sample",
    "worker",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordNotRead(ObserverEvent):
    """A record of a list is left out: a newer version wrote it, or another program."""

    kind: RecordKind


@dataclass(frozen=True, slots=True, kw_only=True)
class HintsNotSent(ObserverEvent):
    """The broker takes no hints; they wait, or the sweep sends them again. Once an outage."""

    error: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class HintsSentAgain(ObserverEvent):
    """The broker takes hints again; so many of those that waited are still to be sent."""

    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageDropped(ObserverEvent):
    """A queue held something else than a hint, or the control channel than a command.

    It was dropped and is noted in the quarantine; for the channel, `queue` is `control`. `task` is
    the name of a task that nobody knows, '' otherwise.
    """

    queue: Name
    reason: Code
    size_bytes: int
    sha256: Id
    task: Name = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineNoteLost(ObserverEvent):
    """A dropped message is not noted in the quarantine: Redis is away, or there are too many."""

    reason: Code
    sha256: Id
    error: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerUnavailable(ObserverEvent):
    """The broker does not answer, so this worker takes no hints."""

    error: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteControlUnavailable(ObserverEvent):
    """Redis refused what Celery's remote control needs; hints are taken all the same."""

    error: Code


# Worker processes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(ObserverEvent):
    """A worker takes hints from now on, up to `concurrency` at once, and calls these `models`."""

    version: Name
    queues: Name
    concurrency: int
    server: Name
    shards: int
    durability: Code
    memory: Code
    models: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsServed(ObserverEvent):
    """A worker serves its metrics at this address, `host:port`."""

    address: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class TracesExported(ObserverEvent):
    """Spans of this process are sent to this host and port from now on."""

    address: Name


@dataclass(frozen=True, slots=True, kw_only=True)
class SpansDropped(ObserverEvent):
    """Spans were dropped: the queue was full, or they could not be sent; no job noticed.

    `first` is whether these are the first ones of this process.
    """

    spans: int
    code: Code
    first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopping(ObserverEvent):
    """A worker takes no more hints and closes what it has opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerDraining(ObserverEvent):
    """An operator's order drains this worker: it finishes what it holds, and ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStalled(ObserverEvent):
    """A worker took no hint for so long, though the broker answers; it ends."""

    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTaskFailed(ObserverEvent):
    """A periodic task failed, `failures` times in a row so far; it runs again at its next turn."""

    task: Name
    error: Code
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTaskLate(ObserverEvent):
    """One run of a periodic task takes longer than it may."""

    task: Name
    running_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodicTaskRecovered(ObserverEvent):
    """A periodic task works again, after so many failures in a row, or after it was late."""

    task: Name
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLoopBlocked(ObserverEvent):
    """Something has not let go of the event loop for `lag_s` seconds, at this line."""

    lag_s: float
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStuck(ObserverEvent):
    """A Celery task ignores its cancellation; its slot is lost until it ends."""

    task: Name
    task_id: Id


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(ObserverEvent):
    """A bug: a Celery task raised an error; the job or lane is taken over when its lease ends."""

    task: Name
    task_id: Id
    error: Code
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TracerFailed(ObserverEvent):
    """A bug in what runs Celery's tasks; the job is taken over when its lease ends."""

    error: Code
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailed(ObserverEvent):
    """A bug in what tells Celery of a task; the others go on."""

    error: Code
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeBroken(ObserverEvent):
    """A bug that ends this worker; what it held is taken over."""

    error: Code
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLoopNotStopped(ObserverEvent):
    """The event loop of a worker that stops did not stop within `waited_s` seconds."""

    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessKilled(ObserverEvent):
    """A worker did not end within `waited_s` seconds of its stop and ends itself by force."""

    waited_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriberFailed(ObserverEvent):
    """A subscriber of these events raised an error; reported for its first one only."""

    subscriber: Code
    error: Code
    place: Place


#: All classes of events.
EVENTS: tuple[type[ObserverEvent], ...] = tuple(
    one
    for one in tuple(globals().values())
    if isinstance(one, type) and issubclass(one, ObserverEvent) and one.__module__ == __name__
)
