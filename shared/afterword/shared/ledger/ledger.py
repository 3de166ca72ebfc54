"""The ledger: one object that holds its parts and their connections to Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace

from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.ledger.access_keys import AccessKeys
from afterword.shared.ledger.account import Accounts
from afterword.shared.ledger.browsing import Browsing
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.identity import Identities, Identity
from afterword.shared.ledger.imports import Imports
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.ledger.memory_requests import MemoryRequests
from afterword.shared.ledger.migrations import Migrations
from afterword.shared.ledger.orders import Orders
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.queries import Queries
from afterword.shared.ledger.quotas import Quotas
from afterword.shared.ledger.replay_runs import ReplayRuns
from afterword.shared.ledger.samples import Samples
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.stories import Stories
from afterword.shared.ledger.turns import DuplicateChecks, Turns
from afterword.shared.ledger.user_records import UserRecords
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
        if settings.redis_url is None:
            raise Misconfigured("AFTERWORD_REDIS_URL", "must be set: there is no ledger without it")
        self.settings = settings
        self._pipeline = Pipeline(settings.redis_url, patience_s=patience_s)
        self._submits = _pipeline_for_submits(settings, self._pipeline, patience_s)
        self._hint_sender = _hint_sender(settings)
        send_hints = self._hint_sender.send if self._hint_sender else None
        shards = Shards(settings, self._pipeline, send_hints)
        self._blocking = None if send_hints else _blocking_connection(settings, patience_s)
        self.jobs = Jobs(shards, Shards(settings, self._submits, send_hints), self._blocking)
        self.turns = Turns(shards)
        self.duplicate_checks = DuplicateChecks(shards)
        self.gates = Gates(shards)
        self.orders = Orders(shards)
        self.quotas = Quotas(shards)
        self.maintenance = Maintenance(shards)
        self.dead_letters = DeadLetters(shards, self.jobs)
        self.replay_runs = ReplayRuns(shards)
        self.erasures = Erasures(shards)
        self.memory_requests = MemoryRequests(shards)
        self.migrations = Migrations(shards)
        self.imports = Imports(shards)
        self.accounts = Accounts(shards)
        self.quarantine = Quarantine(shards)
        self.queries = Queries(shards)
        self.stories = Stories(shards, self.queries)
        self.user_records = UserRecords(shards, self.queries, self.erasures)
        self.identities = Identities(shards)
        self.access_keys, self.samples, self.browsing = (
            AccessKeys(shards),
            Samples(shards),
            Browsing(shards, self.dead_letters),
        )
        self._pubsub, self._roots = PubSub(settings.redis_url), shards.all

    async def check(self, *, founds: bool = False) -> Preflight:
        """Refuse a Redis that cannot hold the ledger, and a ledger that these settings do not fit.

        See `transport.preflight.check` and `Identities.check`, whose answer is `identity` from then
        on. `founds` is for those that fill the ledger: producers and workers.
        """
        found = await preflight.check(self._pipeline, self.settings)
        self.identity = await self.identities.check(founds=founds)
        return found

    async def examine(self) -> Preflight:
        """Return whatever `check` refuses, without refusing it.

        Raises `LedgerUnavailable` if Redis gives no answer.
        """
        found = await preflight.examine(self._pipeline, self.settings)
        try:
            await self.identities.check(founds=False)
        except Misconfigured as error:
            return replace(found, problems=(*found.problems, error))
        return found

    def listen_to_job(
        self, job_id: str, on_message: OnMessage
    ) -> AbstractAsyncContextManager[None]:
        """Call `on_message` with the type of each event of a job while the context is open."""
        return self._pubsub.subscribed(self.queries.wake_channel(job_id), on_message)

    @asynccontextmanager
    async def listen_to_fences(self, on_message: OnMessage) -> AsyncIterator[None]:
        """Call `on_message` with each job or lane id whose running attempt was overtaken."""
        async with AsyncExitStack() as stack:
            for keys in self._roots:
                await stack.enter_async_context(self._pubsub.subscribed(keys.fenced, on_message))
            yield

    def listen_to_gates(self, on_message: OnMessage) -> AbstractAsyncContextManager[None]:
        """Call `on_message` with '<shut|doubted> <gate>' when a gate has just become so."""
        return self._pubsub.subscribed(self.gates.channel, on_message)

    def trouble_since(self, moment: float) -> LedgerUnavailable | None:
        """Return why Redis was last unavailable, if it was since a moment of the loop's clock."""
        return self._submits.trouble_since(moment) or self._pipeline.trouble_since(moment)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._blocking is not None:
            self._blocking.close()
        if self._hint_sender is not None:
            await self._hint_sender.aclose()
        await self._pubsub.aclose()
        await self._submits.aclose()
        await self._pipeline.aclose()


def _pipeline_for_submits(settings: Settings, pipeline: Pipeline, patience_s: float) -> Pipeline:
    """Return the same pipeline, or one of its own if submits wait for replicas."""
    if settings.durability != "d3" or settings.redis_url is None:
        return pipeline
    return ReplicatedPipeline(
        settings.redis_url,
        patience_s=patience_s,
        replicas=settings.replicas,
        channel=f"{settings.namespace}:submitted",
    )


def _blocking_connection(settings: Settings, patience_s: float) -> BlockingConnection | None:
    """Return a connection for blocking submits; None if they must wait for replicas."""
    if settings.redis_url is None or settings.durability == "d3":
        return None
    return BlockingConnection(settings.redis_url, timeout_s=patience_s * _SHARE_OF_ONE_TRY)


def _hint_sender(settings: Settings) -> HintSender | None:
    """Return what sends hints to a broker that is another server; None if Redis is the broker."""
    if settings.broker_url is None or settings.broker_url == settings.redis_url:
        return None
    return HintSender(settings.broker_url, settings.namespace)
