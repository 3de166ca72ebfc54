"""What a worker says of itself once it takes hints."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from afterword.shared.events import WorkerReady
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.observer import emit
from afterword.shared.settings import Settings
from afterword.shared.transport.preflight import Preflight
from afterword.shared.version import __version__


def announce(
    settings: Settings, consumed: Collection[str], found: Preflight, concurrency: int
) -> None:
    """Say what operators need to know of a worker of these queues, in one event."""
    emit(
        WorkerReady,
        version=__version__,
        queues="+".join(sorted(consumed)),
        concurrency=concurrency,
        server=found.server,
        shards=settings.shards,
        durability=found.durability,
        memory=settings.backend,
        models="+".join(models_called(settings, consumed)) or "none",
    )


def models_called(settings: Settings, consumed: Collection[str]) -> Sequence[str]:
    """Return the models that a worker of these queues calls itself; mem0's platform has its own."""
    of_replies = [settings.model, *settings.fallback_models] if REPLIES in consumed else []
    extracts = MEMORIES in consumed and settings.backend == "selfhosted"
    of_memory = [settings.memory_model] if extracts else []
    return list(dict.fromkeys([*of_replies, *of_memory]))
