"""The kinds of workers, and which of them were heard of a moment ago."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.fleet_status import GONE_S
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.records import Overview, WorkerSeen
from afterword.shared.settings import Settings


@asynccontextmanager
async def open_ledger(settings: Settings | None = None) -> AsyncIterator[CheckedLedger]:
    """Open the ledger of these settings, or of the environment, for a command's patience."""
    async with CheckedLedger.open(settings or settings_in_use()) as checked:
        yield checked


def running(shards: Sequence[Overview], kind: str) -> list[WorkerSeen]:
    """Return the workers of a kind whose heartbeat came a moment ago, to the first shard."""
    first = shards[0]
    return [
        worker
        for worker in first.workers
        if QUEUES[kind] in worker.queue.split("+")
        and (first.at - worker.seen_at).total_seconds() < GONE_S
    ]
