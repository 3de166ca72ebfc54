"""The supervisor of all that is embedded.

One per data folder. It starts Valkey, then the model and the workers side by side, keeps them
alive, and stops everything once its last client has gone. `afterword.workers.local_stack.client`
starts it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from afterword.shared.errors import AfterwordError, Misconfigured
from afterword.shared.settings import Settings
from afterword.workers.local_stack import locks
from afterword.workers.local_stack import services as parts
from afterword.workers.local_stack.client_socket import STOPPED_WITHIN_S, Lifeline
from afterword.workers.local_stack.data_dir import Folder
from afterword.workers.local_stack.process import SupervisedProcess

logger = logging.getLogger(__name__)


class Stack:
    """ReplayRuns everything of one data folder for as long as anybody needs it."""

    def __init__(
        self,
        settings: Settings,
        folder: Folder,
        worker: parts.WorkerCommand = parts.celery_worker,
    ) -> None:
        """Take the command line of the workers from `worker`."""
        self._settings = settings
        self._folder = folder
        self._worker = worker
        self._over = asyncio.Event()
        self._line = Lifeline(on_deserted=self._end)
        self._stages: list[list[SupervisedProcess]] = []
        self._served: dict[str, str] | None = None

    async def run(self, client: socket.socket) -> None:
        """Serve `client` and whoever comes, until all have gone or a signal says to stop.

        Does nothing if another stack serves this folder. Raises `StackFailed` or `Misconfigured`
        after all clients were told.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._end)
        await self._line.adopt(client)
        try:
            with ExitStack() as held:
                if await self._is_alone(held):
                    await self._serve(held)
        finally:
            await self._line.close()

    def _end(self) -> None:
        self._line.turn_away()
        self._over.set()

    async def _is_alone(self, held: ExitStack) -> bool:
        """Take the folder's lock, unless its holder serves clients or ours has gone."""
        lock = await locks.hold(
            self._folder.lock,
            self._settings.drain_s + STOPPED_WITHIN_S,
            unless=lambda: self._over.is_set() or _listens(self._folder.lifeline),
        )
        if lock is None:
            return False
        held.callback(os.close, lock)
        return True

    async def _serve(self, held: ExitStack) -> None:
        self._folder.record.unlink(missing_ok=True)
        await self._line.listen(self._folder.lifeline)
        work = asyncio.create_task(self._work(held))
        over = asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait((work, over), return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            over.cancel()
            await self._stop(work)

    async def _work(self, held: ExitStack) -> None:
        """Start everything and keep it alive; end only by an error, which clients are told."""
        try:
            assembler = parts.Assembler(self._settings, self._folder, held)
            await self._keep(await assembler.assemble(self._worker))
        except AfterwordError as error:
            self._line.say("failed", _failure(error))
            raise

    async def _keep(self, assembly: parts.Assembly) -> None:
        self._stages = [
            [SupervisedProcess(part, self._folder, self._tell) for part in stage]
            for stage in assembly.stages
        ]
        first, *others = self._stages
        try:
            async with asyncio.TaskGroup() as group:
                await _start(first, group)
                await _start(chain.from_iterable(others), group)
                self._announce(assembly.served)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the first to give up stopped the others

    async def _stop(self, work: asyncio.Task[None]) -> None:
        """Stop the parts, those that need others first."""
        self._end()
        self._folder.lifeline.unlink(missing_ok=True)
        self._folder.record.unlink(missing_ok=True)
        work.cancel()
        await asyncio.wait((work,))
        for stage in reversed(self._stages):
            await asyncio.gather(*(keeper.stop() for keeper in stage))

    def _announce(self, served: Mapping[str, str]) -> None:
        self._served = dict(served)
        self._record(self._served)
        needed = parts.names(self._settings)
        self._line.say("ready", {"ready": True, "env": self._served, "parts": needed})

    def _tell(self, step: str, state: str, detail: str | None) -> None:
        logger.info("%s %s %s", step, state, detail or "")
        self._line.say(step, {"step": step, "state": state, "detail": detail})
        if state == "ready" and self._served is not None:
            self._record(self._served)  # its process id is another one now

    def _record(self, served: Mapping[str, str]) -> None:
        pids = {keeper.part.name: keeper.pid for keeper in chain.from_iterable(self._stages)}
        self._folder.write_record(
            {"pid": os.getpid(), "socket": str(self._folder.lifeline), "env": served, "parts": pids}
        )


async def _start(keepers: Iterable[SupervisedProcess], group: asyncio.TaskGroup) -> None:
    """Start them side by side; return once all are ready."""
    started = [(keeper, group.create_task(keeper.keep())) for keeper in keepers]
    for keeper, _ in started:
        await keeper.ready.wait()


def _failure(error: AfterwordError) -> dict[str, str | None]:
    if isinstance(error, Misconfigured):
        return {"failed": error.reason, "setting": error.setting}
    return {"failed": str(error), "setting": None}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _detach() -> None:
    """Leave the session of whoever started us; only the lifeline ties us to them."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)


def main(worker: parts.WorkerCommand = parts.celery_worker) -> None:
    """Run the stack that the settings in the environment ask for, in the background."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", type=int, required=True, help="descriptor of a socket pair")
    client = socket.socket(fileno=parser.parse_args().client)
    settings = Settings.load()
    folder = Folder.open(settings.data_dir)
    _detach()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(Stack(settings, folder, worker).run(client))
    except AfterwordError as error:
        logger.error("%s", error)  # noqa: TRY400 - no traceback: it says all there is to say
        sys.exit(1)


if __name__ == "__main__":
    main()
