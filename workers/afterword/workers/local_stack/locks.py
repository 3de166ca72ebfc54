"""Locks on files: held by open descriptors, so that the kernel frees them whatever happens."""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

_LOOK_AGAIN_S = 0.05


async def hold(path: Path, within_s: float, unless: Callable[[], bool]) -> int | None:
    """Take the lock; return the descriptor that holds it.

    Whoever inherits the descriptor holds it too. None if it is not free within `within_s`, or
    it is taken and `unless` is true.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    give_up = time.monotonic() + within_s
    while not _taken(descriptor):
        if unless() or time.monotonic() > give_up:
            os.close(descriptor)
            return None
        await asyncio.sleep(_LOOK_AGAIN_S)
    return descriptor


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
