"""Logging, the first subscriber of the Observer port: which event makes which line.

Lines go to the logger `afterword`. A program that embeds a producer configures logging as it likes;
a worker writes them as `AFTERWORD_LOG_FORMAT` says, with the ids of the job at hand.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from typing import Any, Literal

from afterword.shared import events, observer
from afterword.shared.errors import Fault
from afterword.shared.events import Context, ObserverEvent
from afterword.shared.plurals import in_number
from afterword.shared.trace_context import trace_id_in

#: Where all lines of ours go.
LOGGER = logging.getLogger("afterword")

#: Longest text of one field in a line.
MOST_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Line:
    """What an event logs: a text with `{fields}` and a level.

    Events for which `matters` is true are logged at `raised`, if that is given.
    """

    level: int
    text: str
    raised: int = 0
    matters: Callable[[Any], object] = bool

    @property
    def levels(self) -> set[int]:
        """Return the levels that the line can have."""
        return {self.level, self.raised} if self.raised else {self.level}

    def level_of(self, event: ObserverEvent) -> int:
        """Return the level for one event."""
        return self.raised if self.raised and self.matters(event) else self.level


LINES: dict[type[ObserverEvent], Line] = {
    events.JobSubmitted: Line(DEBUG, "job submitted, accepted as {accepted_as}"),
    events.JobRefused: Line(DEBUG, "job not accepted: {error}"),
    events.JobClaimed: Line(DEBUG, "job claimed after {queued_s:.3f} s in the queue"),
    events.RecallFinished: Line(
        DEBUG, "memory {status}: {kept} recalled, {dropped} dropped, in {duration_s:.3f} s"
    ),
    events.RecallFailed: Line(WARNING, "recall failed: {code}"),
    events.ForeignMemoriesDropped: Line(
        ERROR, "mem0 gave {count} memories of another user; dropped"
    ),
    events.MalformedMemoriesDropped: Line(
        WARNING, "mem0 gave {count} memories that cannot be read; dropped"
    ),
    events.ModelCalled: Line(DEBUG, "calling {model}"),
    events.ModelAnswered: Line(
        DEBUG, "{model} answered in {duration_s:.3f} s, {output_tokens} tokens ({stop_reason})"
    ),
    events.TokensWithoutReply: Line(
        DEBUG,
        "attempt without a reply: {input_tokens} input and {output_tokens} output tokens, "
        "counted: {counted}",
        raised=WARNING,
        matters=lambda event: not event.counted,
    ),
    events.LostAttemptCounted: Line(
        INFO,
        "an attempt was lost: about {input_tokens} input and {output_tokens} output tokens",
    ),
    events.AnswerFieldsDropped: Line(WARNING, "{model} answered with unreadable fields: {fields}"),
    events.ModelReplaced: Line(WARNING, "{model} failed: {code}; calling {replacement} instead"),
    events.ModelFailed: Line(DEBUG, "{model} gave no whole answer: {code}"),
    events.ReplyPublished: Line(DEBUG, "reply published after {total_s:.3f} s"),
    events.JobReleased: Line(DEBUG, "job waits {delay_s:.1f} s: {code}"),
    events.JobSnoozed: Line(WARNING, "job snoozed for {delay_s:.1f} s: {code} ({fault})"),
    events.JobRetried: Line(WARNING, "attempt failed: {code} ({fault}); again in {delay_s:.1f} s"),
    events.JobGivenUp: Line(WARNING, "job failed for good: {code} ({fault})"),
    events.JobReturned: Line(INFO, "job returned to the queue: this worker stops"),
    events.JobOvertaken: Line(
        INFO,
        "job lost: it was cancelled, has expired, was taken over, or its lease was not renewed",
    ),
    events.LaneClaimed: Line(DEBUG, "lane claimed with {turns} turns"),
    events.LaneReleased: Line(DEBUG, "lane waits {delay_s:.1f} s: {code}"),
    events.LaneOvertaken: Line(
        INFO, "lane lost: another worker has taken it over, or its lease was not renewed"
    ),
    events.TurnBegun: Line(DEBUG, "storing {turns} turns"),
    events.FactsTranslated: Line(INFO, "{count} facts in another language than the user's"),
    events.MessageBatchSent: Line(INFO, "message batch sent: {turns} turns"),
    events.MessageBatchEnded: Line(
        INFO, "message batch answered {answered} of {turns} turns after {age_s:.0f} s"
    ),
    events.MessageBatchFailed: Line(WARNING, "message batch of {turns} turns: {code} ({fault})"),
    events.StoreAnswered: Line(DEBUG, "mem0 answered after {duration_s:.2f} s: {outcome}"),
    events.TurnSettled: Line(DEBUG, "{turns} turns {outcome}: {memories} memories {code}"),
    events.ExtractionPaid: Line(
        DEBUG, "extraction by {model}: {input_tokens} input and {output_tokens} output tokens"
    ),
    events.SecretsFound: Line(INFO, "secrets in what was said: {count} of the kind {kind}"),
    events.TurnAccepted: Line(DEBUG, "mem0 works on {turns} turns; asking in {delay_s:.1f} s"),
    events.TurnPostponed: Line(
        DEBUG,
        "{turns} turns not stored: {code} ({fault}); again in {delay_s:.1f} s",
        raised=WARNING,
        matters=lambda event: event.code != "message_batch",
    ),
    events.TurnReturned: Line(INFO, "{turns} turns returned to their lane: this worker stops"),
    events.BatchSplit: Line(
        WARNING,
        "{turns} turns not stored: {code} ({fault}); one by one in {delay_s:.1f} s",
    ),
    events.ReplayBegun: Line(DEBUG, "replay run {run} is driven from here"),
    events.DeadLetterReplayed: Line(DEBUG, "dead letter of {queue} replayed: {outcome}"),
    events.ReplayEnded: Line(DEBUG, "replay run {run} ends here: {outcome} {code}"),
    events.TurnBuried: Line(WARNING, "turn is a dead letter now: {code} ({fault})"),
    events.DuplicatesRemoved: Line(WARNING, "turn was stored {copies} times, now once"),
    events.RepairPostponed: Line(WARNING, "turn could not be checked for duplicates: {code}"),
    events.UserForgotten: Line(INFO, "memories erased; again in {delay_s:.0f} s, for good"),
    events.MemoryRequestAnswered: Line(DEBUG, "answered {action} of memories: {code}"),
    events.LateCopiesRemoved: Line(
        WARNING, "removed {copies} late copies of memories that their user had changed"
    ),
    events.ErasurePostponed: Line(WARNING, "erasure waits {delay_s:.0f} s: {code}"),
    events.UserErased: Line(
        INFO,
        "user erased; memories {memory}, log rewrite {log}, slow log {command_log}",
    ),
    events.Mem0Failed: Line(WARNING, "mem0 failed: {error} at {place}"),
    events.BackendUnavailable: Line(WARNING, "{backend} cannot be used yet: {error}"),
    events.InternalError: Line(ERROR, "internal error: {error} at {place}"),
    events.GateClosed: Line(
        WARNING,
        "gate {gate} is shut: {code} ({fault}) {setting}",
        raised=ERROR,
        matters=lambda event: event.fault is Fault.OPERATOR,
    ),
    events.GateCanarySent: Line(DEBUG, "gate {gate} lets one call pass"),
    events.GateOpened: Line(INFO, "gate {gate} opens"),
    events.LedgerUnfit: Line(WARNING, "nothing will be accepted: {problem}"),
    events.GateUnknown: Line(WARNING, "gate {gate} taken for open, Redis did not say: {error}"),
    events.LeasesNotRenewed: Line(ERROR, "{count} leases not renewed, work given up: {error}"),
    events.SweepFinished: Line(
        DEBUG,
        "swept: {expired} expired, {taken_back} taken back, {hinted_again} hinted again",
        raised=INFO,
        matters=lambda event: event.expired or event.taken_back or event.hinted_again,
    ),
    events.InconsistencyFixed: Line(ERROR, "inconsistency fixed: {kind}"),
    events.ReconciliationFinished: Line(
        DEBUG,
        "{fixed} inconsistencies fixed",
        raised=ERROR,
        matters=lambda event: event.fixed,
    ),
    events.LedgerStateNotKept: Line(
        WARNING,
        "AFTERWORD_STATE_DIR cannot be written: {error}; after a restart an older ledger "
        "is not noticed",
    ),
    events.LedgerReplaced: Line(
        CRITICAL,
        "the ledger is new, and another one was in its place, up to number {seen}: what that one "
        "held is not in this Redis",
    ),
    events.LedgerRolledBack: Line(
        CRITICAL,
        "the ledger went back from number {seen} to {found}, to an older file or a replica that "
        "lagged; what was accepted in between is lost, and mem0 is asked before a turn is added",
    ),
    events.ListenerFailed: Line(ERROR, "event listener failed: {error} at {place}"),
    events.RecordNotRead: Line(
        WARNING, "a {kind} was left out: a newer version or another program wrote it"
    ),
    events.HintsNotSent: Line(WARNING, "hints not sent, the broker does not take them: {error}"),
    events.HintsSentAgain: Line(INFO, "hints sent again, {waiting} still waiting"),
    events.MessageDropped: Line(
        ERROR, "message dropped from {queue}: {reason}, {size_bytes} bytes, sha256 {sha256} {task}"
    ),
    events.QuarantineNoteLost: Line(ERROR, "message {sha256} not noted: {reason} {error}"),
    events.BrokerUnavailable: Line(ERROR, "no hints, the broker does not answer: {error}"),
    events.RemoteControlUnavailable: Line(WARNING, "remote control may not answer: {error}"),
    events.WorkerReady: Line(
        INFO,
        "ready: {queues}, {concurrency} at once, ledger {server} in {shards} shards, durability "
        "{durability}, memory {memory}, models {models}, version {version}",
    ),
    events.TracesExported: Line(INFO, "spans are sent to {address}"),
    events.SpansDropped: Line(
        DEBUG,
        "{spans} spans dropped: {code}; jobs go on, and further ones are counted only",
        raised=WARNING,
        matters=lambda event: event.first,
    ),
    events.MetricsServed: Line(INFO, "metrics at http://{address}/metrics"),
    events.WorkerStopping: Line(INFO, "stopping"),
    events.WorkerDraining: Line(INFO, "drained by order: finishing what it holds"),
    events.WorkerStalled: Line(
        CRITICAL, "worker ends: no hint taken for {waited_s:.0f} s, though the broker answers"
    ),
    events.PeriodicTaskFailed: Line(
        DEBUG,
        "periodic task {task} failed {failures} times in a row: {error}",
        raised=WARNING,
        matters=lambda event: event.failures.bit_count() == 1,  # once, twice, four times, ...
    ),
    events.PeriodicTaskLate: Line(ERROR, "periodic task {task} has run for {running_s:.0f} s"),
    events.PeriodicTaskRecovered: Line(INFO, "periodic task {task} works again"),
    events.EventLoopBlocked: Line(
        WARNING, "the event loop has been blocked for {lag_s:.1f} s, now at {place}"
    ),
    events.TaskStuck: Line(
        CRITICAL, "task {task}[{task_id}] ignores its cancellation and keeps its slot until it ends"
    ),
    events.TaskFailed: Line(ERROR, "task {task}[{task_id}] failed: {error} at {place}"),
    events.TracerFailed: Line(CRITICAL, "the tracer failed: {error} at {place}"),
    events.CallbackFailed: Line(ERROR, "a callback of Celery failed: {error} at {place}"),
    events.RuntimeBroken: Line(
        CRITICAL, "worker ends, its background work failed: {error} at {place}"
    ),
    events.EventLoopNotStopped: Line(
        CRITICAL, "the event loop did not stop within {waited_s:.0f} s"
    ),
    events.ProcessKilled: Line(
        CRITICAL, "the process did not exit within {waited_s:.0f} s; forcing it to"
    ),
    events.SubscriberFailed: Line(
        ERROR, "event subscriber {subscriber} failed: {error} at {place}; not reported again"
    ),
}


def log_events(level: int = INFO) -> None:
    """Log from now on those events whose line can reach `level`; nothing changes a second time.

    Whether a line is written is then up to the logger `afterword` and its handlers.
    """
    if not observer.is_subscribed(log_event):
        kinds = [kind for kind, line in LINES.items() if max(line.levels) >= level]
        observer.subscribe(log_event, *kinds)


def log_event(event: ObserverEvent, context: Context) -> None:
    """Write the line of one event."""
    line = LINES[type(event)]
    level = line.level_of(event)
    if not LOGGER.isEnabledFor(level):
        return
    told = {one.name: _clean(getattr(event, one.name)) for one in fields(event)}
    extra = {"event": type(event).__name__, "fields": told, "context": context}
    LOGGER.log(level, "%s", in_number(line.text.format_map(told).rstrip()), extra=extra)


def _clean(value: object) -> Any:
    """Return a value as one line can hold it: nobody forges a line with the name of a model."""
    if not isinstance(value, str):
        return value
    return "".join(one if one.isprintable() else "?" for one in value[:MOST_CHARACTERS])


def named(context: Context) -> dict[str, str | int]:
    """Return what a context names, without what is empty; of the trace, its id only."""
    told = {one.name: _clean(getattr(context, one.name)) for one in fields(context)}
    told["trace_id"] = trace_id_in(told.pop("trace"))
    return {name: value for name, value in told.items() if value}


class TextFormatter(logging.Formatter):
    """One line for people: time, level, message, and the ids of the job at hand.

    A message of several lines, as Celery's about a broker that is away, becomes one.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 logging's name
        """Return the line without a traceback."""
        names = named(_context_of(record))
        names.pop("worker", None)
        ids = " ".join(f"{name}={value}" for name, value in names.items())
        line = " ".join(super().formatMessage(record).split("\n")).rstrip()
        return f"{line} [{ids}]" if ids else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`, the ids of the job at hand.

    For an event, also its class as `event`, and its fields. Lines of other libraries have a
    `traceback` if they were logged with one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC)
        entry: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **named(_context_of(record)),
        }
        if name := getattr(record, "event", ""):
            entry |= {"event": name, **getattr(record, "fields", {})}
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def _context_of(record: logging.LogRecord) -> Context:
    """Return the context of an event, or for any other line that of whoever logs it."""
    found = getattr(record, "context", None)
    return found if isinstance(found, Context) else observer.context()


def formatter(kind: Literal["text", "json"]) -> logging.Formatter:
    """Return the formatter of `AFTERWORD_LOG_FORMAT`."""
    return JsonFormatter() if kind == "json" else TextFormatter()
