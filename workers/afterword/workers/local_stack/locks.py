"""File locks. The kernel releases them when the last descriptor is closed, even by a kill."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

_RETRY_S = 0.05


async def acquire(path: Path, within_s: float, unless: Callable[[], bool]) -> int | None:
    """Wait for the lock; return the descriptor that holds it, None if it could not be acquired.

    Gives up after `within_s` seconds, or once the lock is taken and `unless` returns true. A
    process that inherits the descriptor holds the lock, too.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    give_up = time.monotonic() + within_s
    while not _try_lock(descriptor):
        if unless() or time.monotonic() > give_up:
            os.close(descriptor)
            return None
        await asyncio.sleep(_RETRY_S)
    return descriptor


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
