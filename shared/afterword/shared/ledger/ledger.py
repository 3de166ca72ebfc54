"""The ledger as its users see it: one object, a few connections, opened and closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger.account import Accounts
from afterword.shared.ledger.dead_letters import DeadLetters
from afterword.shared.ledger.erasures import Erasures
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.maintenance import Maintenance
from afterword.shared.ledger.quarantine import Quarantine
from afterword.shared.ledger.queries import Queries
from afterword.shared.ledger.replay_runs import ReplayRuns
from afterword.shared.ledger.shard import SendHints, Shards
from afterword.shared.ledger.turns import DuplicateChecks, Turns
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.preflight import check
from afterword.shared.transport.pubsub import OnMessage, PubSub
from afterword.shared.transport.replication import ReplicatedPipeline

#: Of the patience, so that there is time for asking again at the door.
_SHARE_OF_ONE_TRY = 0.5


class Ledger(AsyncCloseable):
    """The record of all jobs and turns.

    Bound to the event loop that first uses it. Every step is confirmed by Redis or raises
    `LedgerUnavailable`; asking again is always safe.
    """

    def __init__(self, settings: Settings, *, patience_s: float) -> None:
        """Take how long a step may take in all."""
        if settings.redis_url is None:
            raise Misconfigured("AFTERWORD_REDIS_URL", "must be set: there is no ledger without it")
        self.settings = settings
        self._pipeline = Pipeline(settings.redis_url, patience_s=patience_s)
        self._submits = _door_for_submits(settings, self._pipeline, patience_s)
        send_hints = _hints_from_afar(settings)
        shards = Shards(settings, self._pipeline, send_hints)
        self._blocking = None if send_hints else _blocking_connection(settings, patience_s)
        self.jobs = Jobs(shards, Shards(settings, self._submits, send_hints), self._blocking)
        self.turns = Turns(shards)
        self.duplicate_checks = DuplicateChecks(shards)
        self.gates = Gates(shards)
        self.maintenance = Maintenance(shards)
        self.dead_letters = DeadLetters(shards, self.jobs)
        self.replay_runs = ReplayRuns(shards)
        self.erasures = Erasures(shards)
        self.accounts = Accounts(shards)
        self.quarantine = Quarantine(shards)
        self.queries = Queries(shards)
        self._pubsub = PubSub(settings.redis_url)
        self._roots = shards.all

    async def check(self) -> dict[str, str]:
        """Refuse a Redis that is unfit, see `afterword.shared.transport.preflight.check`."""
        return await check(self._pipeline, self.settings)

    def listen_to_job(self, job_id: str, hear: OnMessage) -> AbstractAsyncContextManager[None]:
        """Call `hear` with the type of each event of a job, while the context is open."""
        return self._pubsub.subscribed(self.queries.wake_channel(job_id), hear)

    @asynccontextmanager
    async def listen_to_fences(self, hear: OnMessage) -> AsyncIterator[None]:
        """Call `hear` with the id of each running job that was cancelled or expired."""
        async with AsyncExitStack() as stack:
            for keys in self._roots:
                await stack.enter_async_context(self._pubsub.subscribed(keys.fenced, hear))
            yield

    def listen_to_gates(self, hear: OnMessage) -> AbstractAsyncContextManager[None]:
        """Call `hear` with '<shut|doubted> <gate>' when a gate has just become so."""
        return self._pubsub.subscribed(self.gates.channel, hear)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._blocking is not None:
            self._blocking.close()
        await self._pubsub.aclose()
        await self._submits.aclose()
        await self._pipeline.aclose()


def _door_for_submits(settings: Settings, pipeline: Pipeline, patience_s: float) -> Pipeline:
    """Return the door itself, unless submits wait for replicas: the others must not wait too."""
    if settings.durability != "d3" or settings.redis_url is None:
        return pipeline
    return ReplicatedPipeline(
        settings.redis_url,
        patience_s=patience_s,
        replicas=settings.replicas,
        channel=f"{settings.namespace}:submitted",
    )


def _blocking_connection(settings: Settings, patience_s: float) -> BlockingConnection | None:
    """Return a line for one try of a submit; none if it must wait for replicas too."""
    if settings.redis_url is None or settings.durability == "d3":
        return None
    return BlockingConnection(settings.redis_url, timeout_s=patience_s * _SHARE_OF_ONE_TRY)


def _hints_from_afar(settings: Settings) -> SendHints | None:
    """Return how to send hints to a broker that is another server than the ledger's Redis."""
    if settings.broker_url is None or settings.broker_url == settings.redis_url:
        return None
    from afterword.shared.broker import (
        hints_from_afar,  # Celery: only those pay for it that need it
    )

    return hints_from_afar(settings)
