"""What the answers of the ledger mean: pure rules, from what was read to findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.fleet_status import other_memories
from afterword.producer.admin.wording import cause, duration, utc_time
from afterword.producer.cli import render
from afterword.producer.cli.checks.finding import Finding, fail, ok, warn
from afterword.producer.cli.remedies import NOTHING, of_gate
from afterword.producer.cli.workers_seen import running
from afterword.shared.errors import AfterwordError, Misconfigured
from afterword.shared.ledger.account import total
from afterword.shared.ledger.message_batches import OpenMessageBatch
from afterword.shared.ledger.records import (
    Account,
    AgendaCount,
    Gate,
    GateState,
    Overview,
    QuarantineNote,
)
from afterword.shared.names import MEMORIES
from afterword.shared.plurals import quantity
from afterword.shared.settings import Settings
from afterword.shared.transport.preflight import Preflight
from afterword.shared.version import __version__

#: Shares of a limit from which on it is warned of.
_NEARLY_FULL = 0.8

_SKEW_S = 5.0
_SILENT_S = 5.0

#: What is ready and not taken up for so many seconds is a warning, or a failure.
_READY_WARN_S, _READY_FAIL_S = 10.0, 60.0

#: The same for a turn that is not stored yet.
_TURN_WARN_S, _TURN_FAIL_S = 300.0, 3600.0

#: For how long messages of others are a warning.
_RECENT_S = 3600.0

#: So many dead letters within the last hour are no single bad request any more.
_MANY_DEAD = 10

#: Settings that are not about Redis but about the ledger in it.
_LAYOUT = frozenset({"AFTERWORD_SHARDS", "AFTERWORD_NAMESPACE"})

#: What happens once the cause of a shut gate is gone.
_RESUMES = "Once it works, what waits resumes by itself."


def of_redis(found: Preflight) -> list[Finding]:
    """Judge what Redis says of itself, and what the ledger in it says."""
    findings = [_problem(problem) for problem in found.problems]
    checks = {finding.check for finding in findings}
    if "redis" not in checks:
        detail = f"{found.server}, policy {found.policy}, durability {found.durability}"
        findings.insert(0, ok("redis", detail))
    if "layout" not in checks:
        findings.append(ok("layout", "as the ledger says"))
    if found.memory_used >= _NEARLY_FULL:
        detail = f"Redis uses {found.memory_used:.0%} of its maxmemory"
        remedy = "Give Redis more memory (maxmemory), or lower AFTERWORD_RETENTION_S."
        findings.append(warn("room", detail, remedy))
    return findings


def _problem(error: AfterwordError) -> Finding:
    setting = error.setting if isinstance(error, Misconfigured) else ""
    check = "layout" if setting in _LAYOUT else "redis"
    return fail(check, str(error), f"Check {setting or 'AFTERWORD_REDIS_URL'}.")


def of_machine(seen: Mapping[int, int], found: Mapping[int, int]) -> Finding:
    """Judge whether a ledger is older than this machine saw it; both are numbers by shard."""
    older = [shard for shard, number in seen.items() if number > found.get(shard, 0)]
    if older:
        shard = older[0]
        return fail(
            "restored",
            f"the ledger is older than workers of this machine saw it: shard {shard} is at "
            f"{found.get(shard, 0)}, and was at {seen[shard]}",
            "If it was restored from a backup, run afterword restored --apply before any worker "
            "starts.",
        )
    if not seen:
        detail = "no worker of this machine has seen this ledger, so nobody would notice here"
        return ok("restored", f"{detail}; after a restore, run afterword restored --apply")
    return ok("restored", "the ledger is as new as workers of this machine saw it")


def of_room(shards: Sequence[Overview], settings: Settings) -> Finding:
    """Judge how many more jobs the fullest shard takes."""
    most = max(shard.open_jobs for shard in shards)
    detail = f"{most:,} of {settings.max_queued:,} jobs are open"
    remedy = "Start response workers, or raise AFTERWORD_MAX_QUEUED."
    if most >= settings.max_queued:
        return fail("room", f"{detail}: new ones are refused (QueueFull)", remedy)
    if most >= settings.max_queued * _NEARLY_FULL:
        return warn("room", detail, remedy)
    return ok("room", detail)


def of_clock(redis_time: datetime, here: datetime) -> Finding:
    """Judge how far the clocks of Redis and of this machine are apart."""
    skew_s = (here - redis_time).total_seconds()
    if abs(skew_s) > _SKEW_S:
        detail = f"this machine is {skew_s:+.0f} s from Redis, whose time counts"
        return warn("clock", detail, "Synchronise the clocks, with NTP for example.")
    return ok("clock", "as Redis")


def of_workers(shards: Sequence[Overview], settings: Settings) -> list[Finding]:
    """Judge both kinds of workers."""
    return [
        finding
        for kind, queue in QUEUES.items()
        if queue != MEMORIES or settings.backend != "off"
        for finding in _of_kind(kind, shards)
    ]


def _of_kind(kind: str, shards: Sequence[Overview]) -> list[Finding]:
    check = "response workers" if kind == "responses" else "memory workers"
    workers = running(shards, kind)
    if not workers:
        return [fail(check, "none running", f"Start one: afterword worker {kind}")]
    findings = []
    if failing := sorted({task.name for worker in workers for task in worker.tasks}):
        detail = f"{', '.join(failing)} fails or is late"
        remedy = "Look at `afterword status` and at the worker's log."
        findings.append(fail(check, detail, remedy))
    if others := sorted({worker.version for worker in workers} - {__version__}):
        detail = f"run version {', '.join(map(str, others))}, this command {__version__}"
        findings.append(warn(check, detail, "Finish the upgrade: restart them with one version."))
    silent_s = max((shards[0].at - worker.seen_at).total_seconds() for worker in workers)
    if silent_s > _SILENT_S:
        detail = f"one was last seen {silent_s:.0f} s ago; it sends a heartbeat each second"
        remedy = "Look at its log and its load: it may be stuck or ending."
        findings.append(warn(check, detail, remedy))
    return findings or [ok(check, f"{len(workers)} running")]


def of_same_memory(shards: Sequence[Overview]) -> Finding:
    """Judge whether what memory workers store is where response workers look for it."""
    workers = [worker for kind in QUEUES for worker in running(shards, kind)]
    seen = [(worker.name, worker.memory, worker.memory_place) for worker in workers]
    if not (differ := other_memories(seen)):
        return ok("same memory", "all workers use the same")
    if len({memory for _, memory, _ in seen if memory}) > 1:
        remedy = (
            "Give all workers the same AFTERWORD_MEMORY, AFTERWORD_MEMORY_OWNER and MEM0_API_KEY, "
            "and restart them."
        )
        return fail("same memory", differ, remedy)
    remedy = (
        "Unless they lead to the same memory, give all workers the same MEM0_HOST, "
        "AFTERWORD_POSTGRES_URL or AFTERWORD_DATA_DIR, and restart them."
    )
    return warn("same memory", differ, remedy)


def of_queues(shards: Sequence[Overview]) -> list[Finding]:
    """Judge how long what is ready waits to be taken up."""
    findings = []
    for kind, queue in QUEUES.items():
        waited_s = max(_ready_s(shard, row) for shard in shards for row in _rows(shard, queue))
        detail = f"the oldest {queue} are ready for {duration(waited_s)}"
        remedy = f"Start another: afterword worker {kind}; or raise AFTERWORD_CONCURRENCY."
        if waited_s >= _READY_FAIL_S:
            findings.append(fail("queues", detail, remedy))
        elif waited_s >= _READY_WARN_S:
            findings.append(warn("queues", detail, remedy))
    return findings or [ok("queues", "what is ready is taken up")]


def _rows(shard: Overview, queue: str) -> list[AgendaCount]:
    return [row for row in shard.agendas if row.name.partition(".")[0] == queue]


def _ready_s(shard: Overview, row: AgendaCount) -> float:
    return (shard.at - row.ready_since).total_seconds() if row.ready_since else 0.0


def of_gates(gates: Sequence[Gate]) -> list[Finding]:
    """Judge the gates that are shut; one that is opening needs no one."""
    found = [
        fail(
            "gates",
            f"{gate.name} is shut since {utc_time(gate.since)}: {cause(gate)}",
            _cure_of(gate),
        )
        for gate in gates
        if gate.state is GateState.SHUT
    ]
    return found or [ok("gates", "none is shut")]


def _cure_of(gate: Gate) -> str:
    cure = of_gate(gate)
    if gate.by or cure == NOTHING:
        return cure
    return f"{cure}. {_RESUMES}" if cure else _RESUMES


def of_turns(accounts: Sequence[Account], batches: Sequence[OpenMessageBatch] = ()) -> Finding:
    """Judge how long the oldest turn waits to be stored, less what it may wait for a batch."""
    everybody = total(accounts)
    oldest_s, behind = everybody.oldest_s, quantity(everybody.users_behind, "user")
    detail = f"{behind} behind, the oldest by {duration(oldest_s)}" if oldest_s else "none waits"
    remedy = "Look at `afterword status` for gates and memory workers, then `afterword account`."
    late_s = oldest_s
    if turns := sum(batch.turns for batch in batches):
        batch_s = max(batch.age_s for batch in batches if batch.turns)
        detail += f"; {quantity(turns, 'turn')} in message batches, for {duration(batch_s)}"
        remedy += " Message batches take up to a day; AFTERWORD_EXTRACTION=now does without them."
        late_s = max(0.0, oldest_s - batch_s)
    if late_s >= _TURN_FAIL_S:
        return fail("turns", detail, remedy)
    if late_s >= _TURN_WARN_S:
        return warn("turns", detail, remedy)
    if undeleted := sum(not batch.turns for batch in batches):
        detail += f"; message batches that the provider did not delete: {undeleted}"
        return warn("turns", detail, "The log of the memory workers says why; it is tried again.")
    return ok("turns", detail)


def of_dead_letters(shards: Sequence[Overview]) -> Finding:
    """Judge the dead letters: a few of them say little of now, many of the last hour do."""
    turns = sum(shard.dead_turns for shard in shards)
    jobs = sum(shard.failed_jobs for shard in shards)
    recent = sum(shard.recent_dead_letters for shard in shards)
    if not turns and not jobs:
        return ok("dead letters", "none")
    counted = render.counts({"turns": turns, "jobs": jobs})
    detail = f"{counted}, {recent:,} of the last hour"
    remedy = "`afterword dead list` says why; then `afterword dead replay` or `dead discard`."
    return (fail if recent >= _MANY_DEAD else warn)("dead letters", detail, remedy)


def of_neighbours(
    databases: Sequence[str], notes: Sequence[QuarantineNote], at: datetime
) -> Finding:
    """Judge whether others write to our queues, or run a fleet under our name."""
    if databases:
        where = f"database {', '.join(databases)} of this Redis"
        detail = (
            f"workers of the same namespace run in {where}: each hears what the other announces"
        )
        return warn("neighbours", detail, "Give one fleet an AFTERWORD_NAMESPACE of its own.")
    recent = [note.found for note in notes if (at - note.at).total_seconds() < _RECENT_S]
    if recent:
        last = recent[0]
        detail = (
            f"{quantity(len(recent), 'message')} in the last hour came from others, the newest in "
            f"{last.queue} ({last.reason})"
        )
        return warn("neighbours", detail, "See `afterword quarantine list` for what they were.")
    return ok("neighbours", "nobody else writes to our queues")


def of_held(shards: Sequence[Overview]) -> Finding:
    """Judge whether records wait for a newer version."""
    held = sum(row.held for shard in shards for row in shard.agendas)
    if held:
        newest = max(shard.newest_version for shard in shards)
        detail = (
            f"held for record version {newest}: {quantity(held, 'job or lane', 'jobs or lanes')}"
        )
        return warn("held", detail, "Finish the upgrade: start workers of the newer version.")
    return ok("held", "nothing waits for a newer version")
