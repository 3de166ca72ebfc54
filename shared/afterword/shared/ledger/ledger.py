"""The ledger: one object that holds its parts and their connections to Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.ledger.access_keys import AccessKeys
from afterword.shared.ledger.account import Accounts
from afterword.shared.ledger.browsing import Browsing
from afterword.shared.ledger.budget_rows import BudgetRows
from afterword.shared.ledger.console_sessions import ConsoleSessions
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.identity import Identities, Identity
from afterword.shared.ledger.imports import Imports
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.lost_attempts import LostAttempts
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.ledger.memory_requests import MemoryRequests
from afterword.shared.ledger.message_batches import MessageBatches
from afterword.shared.ledger.migrations import Migrations
from afterword.shared.ledger.orders import Orders
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.queries import Queries
from afterword.shared.ledger.quotas import Quotas
from afterword.shared.ledger.replay_runs import ReplayRuns
from afterword.shared.ledger.samples import Samples
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import Spending
from afterword.shared.ledger.stories import Stories
from afterword.shared.ledger.tenants import Tenants
from afterword.shared.ledger.turns import DuplicateChecks, Turns
from afterword.shared.ledger.user_records import UserRecords
from afterword.shared.names import Keys, shard_in
from afterword.shared.servers import broker_is_apart, broker_url, is_cluster, ledger_urls
from afterword.shared.settings import Settings
from afterword.shared.transport import preflight
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.hint_sender import HintSender
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.preflight import Preflight
from afterword.shared.transport.pubsub import OnMessage, PubSub
from afterword.shared.transport.replication import ReplicatedPipeline

#: The share of `patience_s` that a blocking submit may take: the rest is for a retry.
_SHARE_OF_ONE_TRY = 0.5


class Ledger(AsyncCloseable):
    """The record of all jobs and turns.

    Bound to the event loop that first uses it. Every step is confirmed by Redis within
    `patience_s`, or raises `LedgerUnavailable`; repeating it is always safe.
    """

    #: What the ledger is, as `check` found it; None before, and if it is new and was not founded.
    identity: Identity | None = None

    def __init__(self, settings: Settings, *, patience_s: float) -> None:
        urls = ledger_urls(settings)
        self.settings = settings
        self._pipelines = [Pipeline(url, patience_s=patience_s) for url in urls]
        self._submits = _pipelines_for_submits(settings, self._pipelines, urls, patience_s)
        self._hint_sender = _hint_sender(settings)
        send_hints = self._hint_sender.send if self._hint_sender else None
        shards = Shards(settings, self._pipelines, send_hints)
        self._blocking = None if send_hints else _blocking_connection(settings, patience_s)
        self.jobs = Jobs(shards, Shards(settings, self._submits, send_hints), self._blocking)
        self.turns, self.lost_attempts = Turns(shards), LostAttempts(shards)
        self.duplicate_checks = DuplicateChecks(shards)
        self.gates = Gates(shards)
        self.orders = Orders(shards)
        self.quotas, self.maintenance = Quotas(shards), Maintenance(shards)
        self.spending, self.budget_rows = Spending(shards), BudgetRows(shards)
        self.dead_letters = DeadLetters(shards, self.jobs)
        self.replay_runs = ReplayRuns(shards)
        self.erasures = Erasures(shards)
        self.memory_requests = MemoryRequests(shards)
        self.migrations, self.message_batches = Migrations(shards), MessageBatches(shards)
        self.imports = Imports(shards)
        self.accounts = Accounts(shards)
        self.tenants = Tenants(shards)
        self.quarantine = Quarantine(shards)
        self.queries = Queries(shards)
        self.stories = Stories(shards, self.queries)
        self.user_records = UserRecords(shards, self.queries, self.erasures)
        self.identities = Identities(shards)
        self.access_keys, self.console_sessions, self.samples, self.browsing = (
            AccessKeys(shards),
            ConsoleSessions(shards),
            Samples(shards),
            Browsing(shards, self.dead_letters),
        )
        self._pubsubs, self._roots = [PubSub(url) for url in urls], shards.all

    async def check(self, *, founds: bool = False) -> Preflight:
        """Refuse a Redis that cannot hold the ledger, and a ledger that these settings do not fit.

        See `transport.preflight.check` and `Identities.check`, whose answer is `identity` from then
        on. `founds` is for those that fill the ledger: producers and workers.
        """
        found = await preflight.check(self._pipelines, self.settings)
        self.identity = await self.identities.check(founds=founds)
        return found

    async def examine(self) -> Preflight:
        """Return whatever `check` refuses, without refusing it.

        Raises `LedgerUnavailable` if a server gives no answer.
        """
        found = await preflight.examine(self._pipelines, self.settings)
        causes = {getattr(problem, "cause", "") for problem in found.problems}
        if causes & preflight.OTHER_KINDS:
            return found  # to ask it for the ledger would only be refused again
        try:
            await self.identities.check(founds=False)
        except Misconfigured as error:
            return replace(found, problems=(*found.problems, error))
        return found

    def listen_to_job(
        self, job_id: str, on_message: OnMessage
    ) -> AbstractAsyncContextManager[None]:
        """Call `on_message` with the type of each event of a job while the context is open."""
        channel = self.queries.wake_channel(job_id)
        return self._pubsub_of(shard_in(job_id)).subscribed(channel, on_message)

    @asynccontextmanager
    async def listen_to_fences(self, on_message: OnMessage) -> AsyncIterator[None]:
        """Call `on_message` with each job or lane id whose running attempt was overtaken."""
        async with AsyncExitStack() as stack:
            for keys in self._roots:
                pubsub = self._pubsub_of(keys.shard)
                await stack.enter_async_context(pubsub.subscribed(keys.fenced, on_message))
            yield

    def listen_to_gates(self, on_message: OnMessage) -> AbstractAsyncContextManager[None]:
        """Call `on_message` with '<shut|doubted> <gate>' when a gate has just become so."""
        return self._pubsub_of(0).subscribed(self.gates.channel, on_message)

    def trouble_since(self, moment: float) -> LedgerUnavailable | None:
        """Return why Redis was last unavailable, if it was since a moment of the loop's clock."""
        for pipeline in (*self._submits, *self._pipelines):
            if trouble := pipeline.trouble_since(moment):
                return trouble
        return None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._blocking is not None:
            self._blocking.close()
        if self._hint_sender is not None:
            await self._hint_sender.aclose()
        for pubsub in self._pubsubs:
            await pubsub.aclose()
        for pipeline in (*self._submits, *self._pipelines):
            await pipeline.aclose()

    def _pubsub_of(self, shard: int) -> PubSub:
        return self._pubsubs[shard % len(self._pubsubs)]


def _pipelines_for_submits(
    settings: Settings, pipelines: Sequence[Pipeline], urls: Sequence[str], patience_s: float
) -> Sequence[Pipeline]:
    """Return the same pipelines, or others if submits wait for replicas."""
    if settings.durability != "d3":
        return pipelines
    # A message is replicated like a write, and leaves nothing behind; not so in a cluster.
    message = ("PUBLISH", f"{settings.namespace}:submitted", "")
    return [
        ReplicatedPipeline(
            url,
            patience_s=patience_s,
            replicas=settings.replicas,
            write=("SET", Keys(settings.namespace, shard).submitted, "")
            if is_cluster(settings)
            else message,
        )
        for shard, url in enumerate(urls)
    ]


def _blocking_connection(settings: Settings, patience_s: float) -> BlockingConnection | None:
    """Return a connection for blocking submits; None if they must wait for replicas."""
    if settings.redis_url is None or settings.durability == "d3":
        return None
    return BlockingConnection(settings.redis_url, timeout_s=patience_s * _SHARE_OF_ONE_TRY)


def _hint_sender(settings: Settings) -> HintSender | None:
    """Return what sends hints to a broker that is another server; None if Redis is the broker."""
    return (
        HintSender(broker_url(settings), settings.namespace) if broker_is_apart(settings) else None
    )
