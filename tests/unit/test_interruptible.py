"""A command that is told to end clears up first."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from afterword.producer.cli.interruptible import run_interruptible


def test_sigterm_lets_the_work_clear_up() -> None:
    cleared: list[str] = []

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 10)
        finally:
            await asyncio.to_thread(cleared.append, "lifted")

    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_interruptible(work())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cleared == ["lifted"]


def test_what_is_left_alone_returns_its_result() -> None:
    async def work() -> int:
        return 7

    assert run_interruptible(work()) == 7
