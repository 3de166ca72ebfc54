"""The real workers, whose memory meets `tests.kit.workers.memory_faults` first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from afterword.shared.discovery import settings_in_use
from afterword.workers.adapters.mem0.open_source import OpenSourceMemories
from afterword.workers.app import app
from tests.kit.workers.memory_faults import lose, suffer

__all__ = ["app"]

_FOLDER = settings_in_use().data_dir


def _with_faults(verb: str) -> None:
    """Put the flaws around what calls mem0, on the thread that calls it."""
    real: Callable[..., Any] = getattr(OpenSourceMemories, f"_{verb}")

    def call(*arguments: Any) -> Any:
        suffer(_FOLDER, verb)
        answer = real(*arguments)
        lose(_FOLDER, verb)
        return answer

    setattr(OpenSourceMemories, f"_{verb}", call)


for _verb in ("search", "add", "find"):
    _with_faults(_verb)
