"""Runs what clears up behind itself when it is interrupted."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


def run_interruptible(work: Coroutine[Any, Any, Result]) -> Result:
    """Run it; SIGTERM lets it clear up and raises `KeyboardInterrupt`, as Ctrl-C does.

    Schedulers and service managers end a command with SIGTERM, of which Python would die at once.
    """
    try:
        return asyncio.run(_until_sigterm(work))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _until_sigterm(work: Coroutine[Any, Any, Result]) -> Result:
    task = asyncio.current_task()
    assert task is not None, "asyncio.run makes one"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await work
