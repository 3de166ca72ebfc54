"""Runs one service of the stack as a process: starts it, restarts it when it ends, stops it."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from afterword.workers.local_stack import pdeathsig
from afterword.workers.local_stack.client_socket import StackFailed
from afterword.workers.local_stack.data_dir import DataDir

logger = logging.getLogger(__name__)

#: Runs shorter than this count as failed starts.
STEADY_S = 30.0
MAX_FAILED_STARTS = 4
FIRST_PAUSE_S = 0.2

#: Time and level of a line of the log.
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ ")
_REASON_BYTES = 4096
_REASON_CHARACTERS = 300

#: Called with a service's name, its state and a detail or None. States: "starting", "ready",
#: "restarting" and "failed"; the detail of the last two says how the process ended, and why if its
#: log says so.
OnState = Callable[[str, str, str | None], None]


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack. `ready` returns once the process just started does its work."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[None]]
    ready_within_s: float
    stop_within_s: float
    keep_fds: tuple[int, ...] = ()


class SupervisedProcess:
    """Keeps the process of one service running until it is stopped or fails too often."""

    def __init__(self, service: Service, data_dir: DataDir, on_state: OnState) -> None:
        """Run the service in `data_dir.run`, with its output in its log there."""
        self.service = service
        self.ready = asyncio.Event()
        self._data_dir = data_dir
        self._on_state = on_state
        self._process: asyncio.subprocess.Process | None = None
        self._log = data_dir.logs / f"{service.name}.log"
        self._log_began = 0

    @property
    def pid(self) -> int | None:
        """The process id, None while no process runs."""
        return self._process.pid if self._process else None

    async def keep_running(self) -> NoReturn:
        """Start the process, and start it again whenever it ends.

        Raises `StackFailed` after `MAX_FAILED_STARTS` failed starts in a row.
        """
        failed_starts, how_it_ended = 0, ""
        while failed_starts < MAX_FAILED_STARTS:
            if failed_starts:
                await asyncio.sleep(FIRST_PAUSE_S * 2**failed_starts)
            state = "restarting" if how_it_ended else "starting"
            self._on_state(self.service.name, state, how_it_ended or None)
            began = time.monotonic()
            how_it_ended = await self._run_once()
            logger.warning("%s %s", self.service.name, how_it_ended)
            failed_starts = failed_starts + 1 if time.monotonic() - began < STEADY_S else 1
        self._on_state(self.service.name, "failed", how_it_ended)
        raise StackFailed(
            f"{self.service.name} {how_it_ended} ({MAX_FAILED_STARTS} times in a row; its log is "
            f"{self._log})"
        )

    async def stop(self) -> None:
        """Terminate the process, and kill it if it does not end in time.

        Cancel `keep_running` first, or it starts the process again.
        """
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.service.stop_within_s):
                await process.wait()
        except TimeoutError:
            logger.warning("%s did not stop in time and is killed", self.service.name)
            process.kill()
            await process.wait()

    async def _run_once(self) -> str:
        """Run the process to its end; return how it ended."""
        self._process = process = await self._start()
        waiting = asyncio.ensure_future(self.service.ready())
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait(
                (waiting, ended),
                timeout=self.service.ready_within_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiting.done():
                waiting.result()
                self.ready.set()
                self._on_state(self.service.name, "ready", None)
            elif not ended.done():
                process.kill()
                await ended
                return f"was not ready within {self.service.ready_within_s:g} s"
            return _describe_end(await ended, self._log, self._log_began)
        finally:
            waiting.cancel()
            ended.cancel()

    async def _start(self) -> asyncio.subprocess.Process:
        # By path and without `site`: a few milliseconds, and no code of ours after the fork.
        wrapper = (sys.executable, "-I", "-S", pdeathsig.__file__, str(os.getpid()))
        with self._data_dir.open_log(self.service.name) as output:
            self._log_began = output.tell()
            return await asyncio.create_subprocess_exec(
                *wrapper,
                *self.service.command,
                cwd=self._data_dir.run,
                env=self.service.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.service.keep_fds,
            )


def _describe_end(code: int, log: Path, began: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    reason = _last_line(log, began) if code else ""
    return f"exited with code {code}" + (f": {reason}" if reason else "")


def _last_line(log: Path, began: int) -> str:
    """Return the last line that was written to a log since, without its time and level."""
    with log.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        file.seek(max(began, end - _REASON_BYTES))
        lines = file.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return _STAMP.sub("", last)[:_REASON_CHARACTERS]
