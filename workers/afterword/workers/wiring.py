"""Builds a worker: the only module that knows which adapter implements which port."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from afterword.shared.environment import check_proxies
from afterword.shared.errors import Misconfigured
from afterword.shared.events import WorkerStopping
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import MEMORIES, REPLIES, is_memory_request
from afterword.shared.observer import bound, emit
from afterword.shared.settings import Settings
from afterword.shared.traces import tracing
from afterword.shared.version import __version__
from afterword.workers.announcement import announce
from afterword.workers.background.deduplicator import Deduplicator
from afterword.workers.background.late_copies import LateCopyRemover
from afterword.workers.background.periodic import STEADY, PeriodicTask, PeriodicTasks
from afterword.workers.background.presence import Presence
from afterword.workers.background.probes import Probes
from afterword.workers.background.quarantine import QuarantineRecorder
from afterword.workers.background.reconciler import Reconciler
from afterword.workers.background.rollback_detector import RollbackDetector, SeenFile, place_of
from afterword.workers.background.sweeper import sweep
from afterword.workers.background.watchdog import Watchdog, broker_error
from afterword.workers.celery_runtime.drain import DRAIN
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT
from afterword.workers.celery_runtime.hint_order import HINT_ORDER
from afterword.workers.celery_runtime.loop import force_exit_after, stop_worker
from afterword.workers.celery_runtime.pool import STOP_OVERHEAD_S
from afterword.workers.gate import GateClient
from afterword.workers.kept_text import KeptText
from afterword.workers.leases import RENEWALS, Leases
from afterword.workers.memories.admitted_model import AdmittedModel
from afterword.workers.memories.erase import Eraser
from afterword.workers.memories.lane import LaneProcessor
from afterword.workers.memories.message_batches import (
    CALL_S,
    LOOKING_S,
    BatchedModel,
    Batching,
    check_extraction,
)
from afterword.workers.memories.requests import RequestAnswerer
from afterword.workers.memories.store_turns import TurnWriter
from afterword.workers.metrics import metrics
from afterword.workers.ports import Memories, MigratableMemories, Model
from afterword.workers.quotas import ROOMY, QuotaClient
from afterword.workers.replies.lost_attempts import LostAttemptCounter
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder

if TYPE_CHECKING:
    from afterword.workers.adapters.claude.client import Claude

#: How long a step of the ledger is retried: a reply that was paid for is worth the wait.
PATIENCE_S = 60.0

#: Connections to Claude and to mem0's platform are not limited here, but by the worker's slots,
#: which can change while it runs: no job waits for a connection.
MOST_CONNECTIONS = 100_000

#: How often a worker tells the fleet that it is alive, and how its periodic tasks are.
HEARTBEAT_S = 1.0

#: How often notes of dropped messages are written.
QUARANTINE_S = 0.25

#: How often a worker asks how the gates stand, whatever it was told.
GATES_S = 5.0

#: How often a worker sends what it gathered and asks which message batches are due; and how often
#: it asks if it sends none: some may be left.
BATCHES_S, LEFT_BATCHES_S = 5.0, 60.0

#: How often a worker looks for attempts that were lost with their worker, and ended their job.
LOST_ATTEMPTS_S = 15.0

#: A search of all records for inconsistencies takes no longer, unless it hangs.
RECONCILIATION_LIMIT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Runtime:
    """What the Celery tasks call: implements `afterword.workers.celery_runtime.tasks.Runtime`."""

    responder: Responder | None
    lane_processor: LaneProcessor
    request_answerer: RequestAnswerer

    async def respond(self, job_id: str, *, ahead: bool = False) -> None:
        """Answer a job."""
        assert self.responder is not None, "this worker consumes no replies"
        await self.responder.respond(job_id, ahead=ahead)

    async def store_turns(self, lane_id: str) -> None:
        """Store the turns of a lane; or answer a request about memories, which has such a name."""
        if is_memory_request(lane_id):
            await self.request_answerer.process(lane_id)
        else:
            await self.lane_processor.process(lane_id)


@asynccontextmanager
async def runtime(
    settings: Settings,
    queues: Callable[[], Collection[str]],
    concurrency: Callable[[], int] | None = None,
) -> AsyncIterator[Runtime]:
    """Open what a worker of those queues needs, and close it at the end.

    `concurrency` tells how many hints it takes at once, if not as many as the settings say.

    Raises `Misconfigured` or `LedgerUnavailable` if the worker could not work.
    """
    consumed = frozenset(queues()) & {REPLIES, MEMORIES}
    named = "+".join(sorted(consumed))
    async with AsyncExitStack() as stack:
        stack.enter_context(bound(worker=worker_name()))
        ledger = await stack.enter_async_context(Ledger(settings, patience_s=PATIENCE_S))
        found = await ledger.check(founds=True)
        await stack.enter_async_context(_observed(settings, named))
        quotas = await stack.enter_async_context(_quota_client(settings, ledger))
        batching = await stack.enter_async_context(_batching(settings, ledger))
        memories = await open_memories(settings, quotas, batching)
        if memories is not None:
            stack.push_async_callback(memories.aclose)
        leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
        gates = await stack.enter_async_context(_gate_client(ledger))
        responder, model = None, None
        if REPLIES in consumed:
            model = open_model(settings)
            stack.push_async_callback(model.aclose)
            responder = _responder(settings, ledger, model, memories, leases, gates, quotas)
        probes = Probes(gates, model, memories, writes=MEMORIES in consumed)
        background = _background(settings, ledger, memories, leases, probes, queues, batching)
        await stack.enter_async_context(background)
        announce(settings, consumed, found, concurrency() if concurrency else settings.concurrency)
        try:
            yield Runtime(
                responder,
                _lane_processor(settings, ledger, memories, leases, gates, quotas),
                _request_answerer(settings, ledger, memories, leases, gates),
            )
        finally:
            emit(WorkerStopping)


def _request_answerer(
    settings: Settings,
    ledger: Ledger,
    memories: Memories | None,
    leases: Leases,
    gates: GateClient,
) -> RequestAnswerer:
    kept, limit_s = KeptText.of(settings), settings.write_timeout_s
    return RequestAnswerer(
        ledger.memory_requests, ledger.turns, memories, leases, kept, gates, limit_s=limit_s
    )


@asynccontextmanager
async def _observed(settings: Settings, queues: str) -> AsyncIterator[None]:
    """Serve metrics and record spans while the context is open, as far as the settings say."""
    async with metrics(settings, queues), _traces(settings):
        yield


@asynccontextmanager
async def _traces(settings: Settings) -> AsyncIterator[None]:
    """Record spans while the context is open; at its end, send what is left without blocking."""
    traces = tracing(settings)
    traces.__enter__()
    try:
        yield
    finally:
        await asyncio.to_thread(traces.__exit__, None, None, None)


@asynccontextmanager
async def _batching(settings: Settings, ledger: Ledger) -> AsyncIterator[Batching | None]:
    """Open message batches while the context is open, for a backend that can use them.

    Those that are under way are looked at whatever the settings say now.
    """
    check_extraction(settings)
    if settings.backend != "selfhosted":
        yield None
        return
    from afterword.workers.adapters.claude.batches import ClaudeBatches
    from afterword.workers.adapters.mem0.extraction import parse_facts

    api = ClaudeBatches(_claude(settings, min(settings.write_timeout_s, CALL_S)))
    try:
        yield Batching(
            ledger.message_batches,
            api,
            parse_facts,
            settings.extraction_gather_s,
            settings.model_prices,
            settings.tenant_classes,
        )
    finally:
        await api.aclose()


async def open_memories(
    settings: Settings, quotas: QuotaClient | None = None, batching: Batching | None = None
) -> MigratableMemories | None:
    """Open the memory backend that the settings name; None if memory is off.

    With `quotas`, its calls of a model are admitted first. With `batching`, what can wait goes into
    message batches.
    """
    from afterword.workers.adapters.mem0.bare_owners import BareOwners

    memories = await _open_backend(settings, quotas or QuotaClient(), batching)
    if memories is None or settings.memory_owner != "user":
        return memories
    return BareOwners(memories)


async def _open_backend(
    settings: Settings, quotas: QuotaClient, batching: Batching | None
) -> MigratableMemories | None:
    match settings.backend:
        case "off":
            return None
        case "embedded":
            from afterword.workers.adapters.mem0.sqlite.recipe import open_embedded

            return await open_embedded(settings)
        case "hosted":
            from afterword.workers.adapters.mem0.hosted import open_hosted

            check_proxies(os.environ)
            return await open_hosted(settings, MOST_CONNECTIONS)
        case "selfhosted":
            from afterword.workers.adapters.mem0.pgvector.recipe import open_selfhosted

            extracting = open_model(settings, total_s=settings.write_timeout_s)
            model: Model = AdmittedModel(extracting, quotas)
            if batching is not None and settings.extraction == "batch":
                model = BatchedModel(model, batching.gatherer)
            return await open_selfhosted(settings, model, _tag_key(settings))


def open_model(settings: Settings, *, total_s: float | None = None) -> Model:
    """Return the model behind Claude's API; raise `Misconfigured` without a key.

    `total_s` limits one answer, in seconds; by default `AFTERWORD_REPLY_TIMEOUT_S`.
    """
    return _claude(settings, total_s)


def _claude(settings: Settings, total_s: float | None) -> Claude:
    from afterword.workers.adapters.claude.client import Claude

    if settings.anthropic_api_key is None:
        raise Misconfigured("ANTHROPIC_API_KEY", "must be set: no reply comes without it")
    check_proxies(os.environ)
    claude = Claude(
        api_key=settings.anthropic_api_key.get_secret_value(),
        base_url=settings.anthropic_base_url,
        connections=MOST_CONNECTIONS,
        total_s=total_s or settings.reply_timeout_s,
        first_event_s=settings.first_token_timeout_s,
        idle_s=settings.idle_timeout_s,
        effort=settings.effort,
    )
    claude.open()
    return claude


@asynccontextmanager
async def _gate_client(ledger: Ledger) -> AsyncIterator[GateClient]:
    """Know how the gates stand while the context is open; at its end, send all reports."""
    gates = GateClient(ledger.gates)
    async with ledger.listen_to_gates(gates.receive):
        await gates.refresh()
        try:
            yield gates
        finally:
            await gates.flush()


@asynccontextmanager
async def _quota_client(settings: Settings, ledger: Ledger) -> AsyncIterator[QuotaClient]:
    """Reserve before calls while the context is open; at its end, tell what became of it."""
    shared = ledger.quotas if settings.admission else None
    quotas = QuotaClient(shared, settings.anthropic_base_url)
    try:
        yield quotas
    finally:
        await quotas.flush()


def _responder(  # noqa: PLR0913, PLR0917 what a responder needs
    settings: Settings,
    ledger: Ledger,
    model: Model,
    memories: Memories | None,
    leases: Leases,
    gates: GateClient,
    quotas: QuotaClient,
) -> Responder:
    recaller = Recaller(
        memories,
        gates,
        budget=RecallBudget(
            settings.recall_budget_ms / 1000, settings.recall_patience, settings.recall_patience_s
        ),
        limit=settings.recall_top_k,
        least_score=settings.recall_min_score,
        query_characters=settings.recall_query_characters,
        at_once=None if settings.backend == "hosted" else settings.memory_threads,
    )
    HINT_ORDER.watch(recaller.holds_back)
    model_caller = ModelCaller(settings, model, gates, quotas)
    return Responder(
        settings,
        ledger.jobs,
        model_caller,
        recaller,
        leases,
        _tag_key(settings),
        worker_name=worker_name(),
    )


def _lane_processor(
    settings: Settings,
    ledger: Ledger,
    memories: Memories | None,
    leases: Leases,
    gates: GateClient,
    quotas: QuotaClient,
) -> LaneProcessor:
    turn_writer = None
    if memories is not None:
        turn_writer = TurnWriter(
            settings,
            ledger.turns,
            memories,
            leases,
            __version__,
            gates,
            worker_name=worker_name(),
            spending=ledger.spending,
            has_room=partial(quotas.is_ample, settings.memory_model, ROOMY),
        )
    # By then a writer that was at work when the erasure was requested has ended or lost its lease,
    # and mem0's platform has processed what it had accepted.
    settle_s = settings.write_timeout_s + settings.lease_s
    if settings.backend == "hosted":
        settle_s += settings.pending_s
    return LaneProcessor(
        ledger.turns, leases, turn_writer, Eraser(ledger.erasures, memories, settle_s)
    )


def worker_name() -> str:
    """Return what this worker process is called in `status` and in logs: `host:pid`."""
    return f"{socket.gethostname()}:{os.getpid()}"


def _tag_key(settings: Settings) -> bytes:
    """Return the secret for user tags, so that nobody can compute the tag of a user id."""
    secret = settings.anthropic_api_key
    return hashlib.sha256(secret.get_secret_value().encode() if secret else b"").digest()


async def _rollback_detector(settings: Settings, ledger: Ledger) -> RollbackDetector:
    """Return a detector that has looked at the ledger: before, nothing is taken from it."""
    assert ledger.identity is not None, "the check founded it, if it was new"
    file = SeenFile(settings.state_dir, ledger.identity.name, place_of(settings))
    detector = RollbackDetector(ledger.maintenance, file)
    await detector.check()
    return detector


def _watchdog(settings: Settings) -> Watchdog:
    def stop() -> None:
        stop_worker()
        # A worker that takes no hints may not act on the stop either.
        force_exit_after(settings.drain_s + STOP_OVERHEAD_S)

    return Watchdog(CONSUMER_HEARTBEAT, settings.stall_s, partial(broker_error, settings), stop)


@asynccontextmanager
async def _background(  # noqa: PLR0913, PLR0917 what runs beside the work
    settings: Settings,
    ledger: Ledger,
    memories: Memories | None,
    leases: Leases,
    probes: Probes,
    queues: Callable[[], Collection[str]],
    batching: Batching | None,
) -> AsyncIterator[None]:
    """Run the periodic tasks, and cancel jobs that others took over, while the context is open."""
    recorder = QuarantineRecorder(ledger.quarantine)
    watchdog = _watchdog(settings)
    rollback_detector = await _rollback_detector(settings, ledger)
    tasks = _periodic_tasks(settings, ledger, leases, watchdog, rollback_detector)
    tasks.append(PeriodicTask("quarantine", recorder.record, QUARANTINE_S))
    tasks.append(PeriodicTask("gates", probes.refresh_and_test, GATES_S, waits_first=True))
    if memories is not None and MEMORIES in queues():
        tasks += _memory_tasks(settings, ledger, memories, batching)
    if REPLIES in queues():
        counter = LostAttemptCounter(settings, ledger.jobs)
        count = partial(counter.count_due, ledger.lost_attempts)
        tasks.append(PeriodicTask("lost_attempts", count, LOST_ATTEMPTS_S))

    presence = Presence(
        ledger.maintenance, worker_name(), partial(DRAIN.begin, _longest_work_s(settings))
    )

    async def beat() -> None:
        consumed = "+".join(sorted(queues()))  # less what `cancel_consumer` took from it
        if consumed and watchdog.consuming:
            troubled = [one for one in runner.health() if one.state != "ok"]
            await presence.beat(consumed, troubled)

    tasks.append(PeriodicTask("heartbeat", beat, HEARTBEAT_S))
    runner = PeriodicTasks(tasks)
    async with ledger.listen_to_fences(leases.hear):
        with recorder.listening():
            async with runner.running():
                yield
            await recorder.record()
            await presence.leave()


def _memory_tasks(
    settings: Settings, ledger: Ledger, memories: Memories, batching: Batching | None
) -> list[PeriodicTask]:
    """Return the periodic tasks of a worker that stores memories."""
    timeout_s, sweep_s = settings.write_timeout_s, settings.sweep_s
    deduplicator = Deduplicator(ledger.duplicate_checks, memories, timeout_s)
    remover = LateCopyRemover(ledger.memory_requests, memories, timeout_s)
    checks = {
        "deduplication": deduplicator.check_due_turns,
        "late_copies": remover.check_due_turns,
    }
    tasks = [
        PeriodicTask(name, check, sweep_s, limit_s=2 * timeout_s) for name, check in checks.items()
    ]
    if batching is not None:
        often_s = BATCHES_S if settings.extraction == "batch" else LEFT_BATCHES_S
        tasks.append(PeriodicTask("message_batches", batching.run, often_s, limit_s=LOOKING_S))
    return tasks


def _longest_work_s(settings: Settings) -> float:
    """Return how long what a worker holds may take: a reply, or a write to memory."""
    return max(settings.reply_timeout_s, settings.write_timeout_s) + settings.drain_s


def _periodic_tasks(
    settings: Settings,
    ledger: Ledger,
    leases: Leases,
    watchdog: Watchdog,
    rollback_detector: RollbackDetector,
) -> list[PeriodicTask]:
    """Return the periodic tasks that every worker has."""
    maintenance = ledger.maintenance
    reconciler = Reconciler(maintenance, settings.reconcile_s)
    return [
        PeriodicTask(
            "lease_renewal",
            leases.renew_all,
            settings.lease_s / RENEWALS,
            jitter=STEADY,
            waits_first=True,
        ),
        PeriodicTask("sweep", partial(sweep, maintenance), settings.sweep_s),
        PeriodicTask(
            "reconciliation",
            reconciler.reconcile_if_due,
            settings.reconcile_s,
            jitter=(0.5, 1.0),
            limit_s=RECONCILIATION_LIMIT_S,
            waits_first=True,
        ),
        PeriodicTask(
            "watchdog", watchdog.check, watchdog.interval_s, jitter=STEADY, waits_first=True
        ),
        PeriodicTask("rollback_detection", rollback_detector.check, settings.sweep_s, STEADY),
    ]
