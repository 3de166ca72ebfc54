"""A clock of the event loop that stands still until a test lets time pass."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest


def begin_time_with(begun: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the running loop's clock stand still until `begun` is true.

    So a limit begins with what it limits, however long a busy machine takes to come there.
    """
    loop = asyncio.get_running_loop()
    real, at_first = loop.time, loop.time()
    behind: float | None = None

    def now() -> float:
        nonlocal behind
        if behind is None:
            if not begun():
                return at_first
            behind = real() - at_first
        return real() - behind

    monkeypatch.setattr(loop, "time", now)
