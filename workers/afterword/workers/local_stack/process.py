"""A keeper: one process, started, known to be ready, started again when it dies, and stopped."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from afterword.workers.local_stack import pdeathsig as tether
from afterword.workers.local_stack.client_socket import StackFailed
from afterword.workers.local_stack.data_dir import Folder

logger = logging.getLogger(__name__)

#: A part that has lived this long was well; only shorter lives count towards giving up.
STEADY_S = 30.0
MAX_SHORT_LIVES = 4
FIRST_PAUSE_S = 0.2

#: Tells how a part is: its name, "starting", "ready" or "failed", and more words or none.
Tell = Callable[[str, str, str | None], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the stack; `ready` returns once the one just started does its work."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    ready: Callable[[], Awaitable[None]]
    ready_within_s: float
    stop_within_s: float
    keep_fds: tuple[int, ...] = ()


class SupervisedProcess:
    """Keeps one part alive until it is stopped or hopeless."""

    def __init__(self, part: Part, folder: Folder, tell: Tell) -> None:
        """Run the part inside `folder`, where all that it prints goes into its log."""
        self.part = part
        self.ready = asyncio.Event()
        self._folder = folder
        self._tell = tell
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the part, None while there is none."""
        return self._process.pid if self._process else None

    async def keep(self) -> NoReturn:
        """Start the part, and start it again whenever it dies.

        Raises `StackFailed` after several short lives in a row.
        """
        short_lives, words = 0, None
        while short_lives < MAX_SHORT_LIVES:
            if short_lives:
                await asyncio.sleep(FIRST_PAUSE_S * 2**short_lives)
            self._tell(self.part.name, "starting", words)
            began = time.monotonic()
            words = await self._live()
            logger.warning("%s %s", self.part.name, words)
            short_lives = short_lives + 1 if time.monotonic() - began < STEADY_S else 1
        self._tell(self.part.name, "failed", words)
        log = self._folder.logs / f"{self.part.name}.log"
        raise StackFailed(f"{self.part.name} {words}, {MAX_SHORT_LIVES} times in a row; see {log}")

    async def stop(self) -> None:
        """End the part: ask it, wait, then kill it; `keep` must not run any more."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(self.part.stop_within_s):
                await process.wait()
        except TimeoutError:
            logger.warning("%s did not stop in time and is killed", self.part.name)
            process.kill()
            await process.wait()

    async def _live(self) -> str:
        """Run the part once, to its end; return how it ended."""
        self._process = process = await self._start()
        waiting = asyncio.ensure_future(self.part.ready())
        ended = asyncio.create_task(process.wait())
        try:
            await asyncio.wait(
                (waiting, ended),
                timeout=self.part.ready_within_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if waiting.done():
                waiting.result()
                self._announce()
            elif not ended.done():
                process.kill()
                await ended
                return f"was not ready within {self.part.ready_within_s:g} s"
            return _ending(await ended)
        finally:
            waiting.cancel()
            ended.cancel()

    def _announce(self) -> None:
        self.ready.set()
        self._tell(self.part.name, "ready", None)

    async def _start(self) -> asyncio.subprocess.Process:
        # By path and without `site`: a few milliseconds, and no code of ours after the fork.
        bound = (sys.executable, "-I", "-S", tether.__file__, str(os.getpid()))
        with self._folder.log(self.part.name) as output:
            return await asyncio.create_subprocess_exec(
                *bound,
                *self.part.command,
                cwd=self._folder.run,
                env=self.part.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=self.part.keep_fds,
            )


def _ending(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
