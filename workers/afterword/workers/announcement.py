"""What a worker says of itself once it takes hints."""

from __future__ import annotations

from afterword.shared.events import WorkerReady
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.shared.transport.preflight import Preflight
from afterword.shared.version import __version__


def announce(settings: Settings, queues: str, found: Preflight, concurrency: int) -> None:
    """Say what operators need to know of this worker, in one event."""
    emit(
        WorkerReady,
        version=__version__,
        queues=queues,
        concurrency=concurrency,
        server=found.server,
        shards=settings.shards,
        durability=found.durability,
        memory=settings.backend,
        model=settings.model,
    )
