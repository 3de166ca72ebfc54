"""The arguments of every script of the ledger, as its Lua head declares them; see each file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("job/submit")
class SubmitJob(NamedTuple):
    """Accept a job."""

    id: str
    lane: str
    tenant: str
    version: int
    known_version: int
    body: str
    fingerprint: str
    ttl_ms: int
    agenda: str
    turn: str
    max_open: int
    caps: str
    budgets: str
    idempotency: str
    idempotency_ms: int
    conversation: str
    when_busy: str
    max_message_bytes: int
    retention_ms: int
    stream_ms: int
    max_turns: int
    conversation_ms: int
    replay_of: str = ""
    run: str = ""
    trace: str = ""


@declares("job/claim")
class ClaimJob(NamedTuple):
    """Claim a job under a new fence."""

    id: str
    token: str
    lease_ms: int
    max_attempts: int
    known_version: int
    overlay_turns: int
    history_turns: int
    most_bytes: int
    retention_ms: int
    stream_ms: int
    failed_ms: int
    ahead: bool
    worker: str
    running_caps: str


@declares("job/hint_next")
class HintNext(NamedTuple):
    """Hint the job of a shard that is next ahead of all others."""

    agenda: str


@declares("job/renew")
class RenewLeases(NamedTuple):
    """Extend leases that a worker holds."""

    lease_ms: int
    leases: Sequence[tuple[str, str]]


@declares("job/delta")
class AppendDelta(NamedTuple):
    """Append a piece of the reply to the job's stream."""

    id: str
    fence: str
    number: int
    attempt: int
    text: str
    recalled: str = ""


@declares("job/finish")
class FinishJob(NamedTuple):
    """Publish the reply and put the turn into its lane."""

    id: str
    fence: str
    reply: str
    turn: str
    turn_code: str
    conversation_turn: str
    max_turns: int
    conversation_ms: int
    retention_ms: int
    story_ms: int
    stream_ms: int
    delta: int
    text: str
    recalled: str
    memory: str
    first_text: int
    tokens: str
    given: str
    note: str
    usage_ms: int
    cost: int
    period: str
    usage: Sequence[tuple[str, int]]


@declares("job/count_usage")
class CountUsage(NamedTuple):
    """Count the tokens of an attempt that gave no reply."""

    id: str
    fence: str
    tenant: str
    usage_ms: int
    cost: int
    period: str
    usage: Sequence[tuple[str, int]]


@declares("job/due_lost_attempts")
class ListDueLostAttempts(NamedTuple):
    """Give out jobs that ended before their last attempt told what it used."""

    limit: int
    again_ms: int
    known_version: int
    overlay_turns: int
    history_turns: int
    most_bytes: int


@declares("job/fail")
class FailJob(NamedTuple):
    """End a running job without a reply."""

    id: str
    fence: str
    code: str
    fault: str
    worker: str
    retention_ms: int
    stream_ms: int
    note: str


@declares("job/snooze")
class SnoozeJob(NamedTuple):
    """Give a running job back."""

    id: str
    fence: str
    delay_ms: int
    counted: bool
    code: str
    tried: bool
    note: str


@declares("job/cancel")
class CancelJob(NamedTuple):
    """Cancel a job that has not ended."""

    id: str
    known_version: int
    retention_ms: int
    stream_ms: int
    max_turns: int
    conversation_ms: int


@declares("turn/claim")
class ClaimLane(NamedTuple):
    """Claim a user's lane under a new fence."""

    lane: str
    token: str
    lease_ms: int
    max_turns: int
    known_version: int
    batch_ms: int


@declares("turn/wake")
class WakeLanes(NamedTuple):
    """Wake lanes that wait for room in a rate limit."""

    lane: str
    limit: int


@declares("turn/import")
class ImportTurn(NamedTuple):
    """Put a past turn into its user's lane."""

    id: str
    lane: str
    tenant: str
    version: int
    body: str
    reply: str
    key: str
    key_ms: int
    limit: int


@declares("turn/begin")
class BeginBatch(NamedTuple):
    """Record the intent to store a batch."""

    lane: str
    fence: str
    worker: str
    ids: Sequence[str]


@declares("turn/record_event")
class RecordEvent(NamedTuple):
    """Keep mem0's event id of a batch that is being stored."""

    lane: str
    fence: str
    id: str
    event: str


@declares("turn/record_facts")
class RecordFacts(NamedTuple):
    """Keep what was extracted from a batch that is being stored."""

    lane: str
    fence: str
    id: str
    facts: str
    paid: str


@declares("turn/settle")
class SettleBatch(NamedTuple):
    """End a batch."""

    lane: str
    fence: str
    id: str
    state: str
    code: str
    memory_ids: str
    retention_ms: int
    story_ms: int
    check_after_ms: int
    paid: str
    secrets: Sequence[tuple[str, int]]


@declares("turn/postpone")
class PostponeBatch(NamedTuple):
    """Put a batch back to pending and release its lane until later."""

    lane: str
    fence: str
    id: str
    delay_ms: int
    counted: bool
    code: str
    may_be_stored: bool
    split: bool
    paid: str


@declares("turn/release")
class ReleaseLane(NamedTuple):
    """Release a lane."""

    lane: str
    fence: str
    delay_ms: int
    code: str


@declares("turn/due_duplicate_checks")
class ListDueDuplicateChecks(NamedTuple):
    """Give out stored turns that are due to be checked for duplicates in mem0."""

    limit: int
    again_ms: int
    known_version: int


@declares("turn/finish_duplicate_check")
class FinishDuplicateCheck(NamedTuple):
    """Record that mem0 holds a batch once."""

    id: str
    memory_ids: str


@declares("dead_letter/bury")
class BuryTurn(NamedTuple):
    """Make a turn a dead letter."""

    lane: str
    fence: str
    id: str
    code: str
    fault: str
    worker: str
    paid: str


@declares("dead_letter/read")
class ReadDeadLetters(NamedTuple):
    """Read dead letters."""

    content: bool
    ids: Sequence[str]


@declares("dead_letter/replay")
class ReplayTurn(NamedTuple):
    """Put a dead turn back into its lane."""

    id: str
    run: str
    replays: int
    known_version: int


@declares("dead_letter/bury_waiting")
class BuryWaitingTurn(NamedTuple):
    """Make a turn that waits to be stored a dead letter."""

    id: str
    worker: str
    known_version: int


@declares("dead_letter/discard")
class DiscardDeadLetter(NamedTuple):
    """Give up a dead letter for good."""

    id: str
    kind: str
    replays: int
    known_version: int
    retention_ms: int


@declares("run/choose")
class ChooseDeadLetters(NamedTuple):
    """Keep which dead letters a run is to replay."""

    run: str
    lifetime_ms: int
    letters: Sequence[tuple[int, str]]


@declares("run/begin")
class BeginRun(NamedTuple):
    """Begin a replay run over the dead letters that were chosen for it (run/choose.lua)."""

    run: str
    version: int
    by: str
    filter: str
    pace: str
    token: str
    lifetime_ms: int


@declares("run/take_over")
class TakeOverRun(NamedTuple):
    """Take a replay run over."""

    run: str
    token: str
    by: str
    action: str
    known_version: int
    lifetime_ms: int


@declares("run/record")
class RecordOutcomes(NamedTuple):
    """Record what became of dead letters of a replay run."""

    run: str
    token: str
    canary_passed: bool
    outcomes: Sequence[tuple[str, str, str]]


@declares("run/end")
class EndRun(NamedTuple):
    """Record that a replay run is done."""

    run: str
    token: str
    state: str
    reason: str
    by: str
    lifetime_ms: int


@declares("run/outcomes")
class ReadOutcomes(NamedTuple):
    """Return what became of dead letters that a run has replayed."""

    run: str
    ids: Sequence[str]


@declares("run/audit")
class AddAuditEntry(NamedTuple):
    """Add an entry to the audit of what operators did."""

    token: str
    by: str
    action: str
    details: str


@declares("erasure/begin")
class BeginErasure(NamedTuple):
    """Begin to erase a user."""

    lane: str
    version: int
    by: str


@declares("erasure/empty_jobs")
class EmptyJobs(NamedTuple):
    """Empty the records of an erased user's jobs."""

    lane: str
    fence: str
    retention_ms: int
    known_version: int
    ids: Sequence[str]


@declares("erasure/remove_keys")
class RemoveKeys(NamedTuple):
    """Delete whole records of an erased user."""

    lane: str
    fence: str
    keys: Sequence[str]


@declares("erasure/advance")
class AdvanceErasure(NamedTuple):
    """Record how far an erasure has come."""

    lane: str
    fence: str
    state: str
    delay_ms: int
    receipt_ms: int
    aof: str
    memory: str
    command_log: str


@declares("admission/reserve")
class ReserveQuota(NamedTuple):
    """Reserve what a call will probably use of a provider's rate limit."""

    quota: str
    input: int
    output: int
    reply: bool
    returning: bool


@declares("admission/settle")
class SettleQuota(NamedTuple):
    """Say what became of reservations, and what the provider told of its limit."""

    quota: str
    number: int
    told: str
    changes: Sequence[tuple[str, str, int, int]]


@declares("maintenance/account")
class ReadAccount(NamedTuple):
    """Count the users of some tenants whose memory lags behind."""

    late_ms: int
    tenants: Sequence[str]


@declares("maintenance/balance_cap")
class BalanceCap(NamedTuple):
    """Set a shard's part of a tenant's cap on running jobs."""

    tenant: str
    most: int
    shards: int
    turn: int
    part: int


@declares("maintenance/tenants")
class ReadTenants(NamedTuple):
    """Say for which of some tenants jobs wait, since when, and what limits them."""

    tenants: Sequence[str]


@declares("maintenance/identify")
class Identify(NamedTuple):
    """Read what this ledger is; write it, if the ledger is new."""

    layout: int
    shards: int
    records: int
    name: str
    servers: int


@declares("maintenance/witness")
class WitnessSequence(NamedTuple):
    """Compare the ledger with what a witness saw of it."""

    witness: str
    seen: int
    margin: int


@declares("maintenance/overview")
class ReadOverview(NamedTuple):
    """Count what is open, late and dead."""

    retention_ms: int
    recent_ms: int
    limit: int


@declares("maintenance/try_write")
class TryWrite(NamedTuple):
    """Write and delete a key, as far as a submit may write."""


@declares("maintenance/inconsistencies")
class FindInconsistencies(NamedTuple):
    """Check that records are where their states say they must be."""

    fix: bool
    known_version: int
    ids: Sequence[str]


@declares("maintenance/quarantine")
class AddQuarantineNote(NamedTuple):
    """Note a queue message that was no hint."""

    token: str
    keep: int
    queue: str
    reason: str
    size: int
    sha256: str
    task: str


@declares("maintenance/heartbeat")
class RecordHeartbeat(NamedTuple):
    """Record that a worker is alive."""

    worker: str
    status: str
    instance: str
    leaving: bool = False


@declares("maintenance/sweep")
class Sweep(NamedTuple):
    """Do what time has made due."""

    limit: int
    grace_ms: int
    retention_ms: int
    stream_ms: int
    known_version: int
