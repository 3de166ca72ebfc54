"""A supervised process that is late, ignores signals or ends early."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import pytest

from afterword.workers.local_stack import process as module
from afterword.workers.local_stack.client_socket import StackFailed
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.local_stack.process import Service, SupervisedProcess
from tests.kit.process_inspection import alive
from tests.kit.waiting import until

pytestmark = pytest.mark.system

FOR_EVER = "import signal; signal.pause()"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOR_EVER}"


async def at_once() -> None:
    """Be ready at once."""


async def never() -> None:
    await asyncio.Event().wait()


class Watched:
    """A supervised process, the task that runs it, and the states it reported."""

    def __init__(
        self,
        root: Path,
        program: str,
        ready: Callable[[], Awaitable[None]] = at_once,
        ready_within_s: float = 10.0,
        stop_within_s: float = 10.0,
    ) -> None:
        command = (sys.executable, "-S", "-c", program)
        service = Service(
            "service", command, dict(os.environ), ready, ready_within_s, stop_within_s
        )
        self.states: list[tuple[str, str | None]] = []
        self.process = SupervisedProcess(
            service,
            DataDir.open(root),
            lambda _, state, detail: self.states.append((state, detail)),
        )

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.process.keep_running())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))
        await self.process.stop()

    async def pid(self) -> int:
        await asyncio.wait_for(self.process.ready.wait(), 10)
        assert self.process.pid is not None
        return self.process.pid


async def test_stop_terminates_the_process(tmp_path: Path) -> None:
    async with Watched(tmp_path / "f", FOR_EVER) as watched:
        pid = await watched.pid()
    assert not alive(pid)
    assert watched.states == [("starting", None), ("ready", None)]


async def test_stop_kills_a_process_that_ignores_sigterm(tmp_path: Path) -> None:
    async with Watched(tmp_path / "f", DEAF, stop_within_s=0.2) as watched:
        pid = await watched.pid()
        await until(lambda: _ignores_sigterm(pid), "it is deaf")
    assert not alive(pid)


def _ignores_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    return bool(int(mask.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_a_restart_is_reported_with_its_reason(tmp_path: Path) -> None:
    async with Watched(tmp_path / "f", FOR_EVER) as watched:
        pid = await watched.pid()
        os.kill(pid, signal.SIGKILL)
        await until(lambda: watched.states.count(("ready", None)) == 2, "it runs again")
        assert watched.states[2] == ("restarting", "was killed by SIGKILL")
        assert watched.process.pid != pid


REFUSES = """
print("2026-12-01 04:37:45,325 CRITICAL cannot start: AFTERWORD_MEMORY: is wrong")
raise SystemExit(3)
"""


async def test_a_process_that_refuses_to_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    why = "exited with code 3: cannot start: AFTERWORD_MEMORY: is wrong"
    async with Watched(tmp_path / "f", REFUSES, never) as watched:
        with pytest.raises(StackFailed, match=rf"service {why} \(4 times in a row; its log is .*"):
            await asyncio.wait_for(asyncio.shield(watched.task), 60)
    assert watched.states[1:] == [("restarting", why)] * 3 + [("failed", why)]


async def test_what_an_earlier_run_wrote_is_no_reason(tmp_path: Path) -> None:
    log = tmp_path / "f" / "logs" / "service.log"
    once = f"import os; os.path.getsize({str(log)!r}) or print('once'); raise SystemExit(3)"
    async with Watched(tmp_path / "f", once, never) as watched:
        await until(lambda: len(watched.states) > 2, "it was started three times")
    assert watched.states[1:3] == [
        ("restarting", "exited with code 3: once"),
        ("restarting", "exited with code 3"),
    ]


async def test_a_process_that_is_never_ready_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    async with Watched(tmp_path / "f", FOR_EVER, never, ready_within_s=0.1) as watched:
        with pytest.raises(StackFailed, match=r"service was not ready within 0\.1 s \(4 times"):
            await asyncio.wait_for(asyncio.shield(watched.task), 10)
    assert watched.states[-1] == ("failed", "was not ready within 0.1 s")
    assert watched.process.pid is None or not alive(watched.process.pid)


async def test_a_long_run_resets_the_count_of_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(module, "STEADY_S", 0.0)
    async with Watched(tmp_path / "f", "pass") as watched:
        starts = module.MAX_FAILED_STARTS * 2
        await until(
            lambda: watched.states.count(("restarting", "exited with code 0")) > starts, "more"
        )
        assert not watched.task.done()


async def test_the_output_of_a_process_is_in_its_log(tmp_path: Path) -> None:
    async with Watched(tmp_path / "f", f"print('a word', flush=True); {FOR_EVER}"):
        log = tmp_path / "f" / "logs" / "service.log"
        await until(lambda: log.exists() and log.read_text() == "a word\n", "it is there")
