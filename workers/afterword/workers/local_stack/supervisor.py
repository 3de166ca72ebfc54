"""The supervisor: the background process that runs the stack of one data directory.

It starts Valkey, then the model and the workers side by side, restarts what ends, and stops
everything after its last client has left. `afterword.workers.local_stack.client` starts it.
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
from afterword.shared.logs import formatter
from afterword.shared.settings import Settings
from afterword.workers.local_stack import fingerprints, locks
from afterword.workers.local_stack.client_socket import STOPPED_WITHIN_S, ClientSocket
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.local_stack.process import SupervisedProcess
from afterword.workers.local_stack.services import (
    StackPlan,
    StackPlanner,
    WorkerCommand,
    celery_worker,
    service_names,
)

logger = logging.getLogger(__name__)


class Stack:
    """Runs the services of one data directory for as long as it has clients."""

    def __init__(
        self, settings: Settings, data_dir: DataDir, worker: WorkerCommand = celery_worker
    ) -> None:
        """Start workers with the command line that `worker` returns for a queue."""
        self._settings = settings
        self._data_dir = data_dir
        self._worker = worker
        self._stopping = asyncio.Event()
        self._clients = ClientSocket(on_deserted=self._begin_stop)
        self._groups: list[list[SupervisedProcess]] = []
        self._env: dict[str, str] | None = None

    async def run(self, client: socket.socket) -> None:
        """Serve `client` and further clients until all have left or a signal asks to stop.

        Returns at once if another stack serves this directory. Raises `StackFailed` or
        `Misconfigured`, after telling the clients.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self._begin_stop)
        await self._clients.adopt(client)
        try:
            with ExitStack() as held:
                if await self._lock_data_dir(held):
                    await self._serve(held)
        finally:
            await self._clients.close()

    def _begin_stop(self) -> None:
        self._clients.stop_accepting()
        self._stopping.set()

    async def _lock_data_dir(self, held: ExitStack) -> bool:
        """Acquire the directory's lock; give up if its holder accepts clients, or ours left."""
        lock = await locks.acquire(
            self._data_dir.lock,
            self._settings.drain_s + STOPPED_WITHIN_S,
            unless=lambda: self._stopping.is_set() or _accepts(self._data_dir.client_socket),
        )
        if lock is None:
            return False
        held.callback(os.close, lock)
        return True

    async def _serve(self, held: ExitStack) -> None:
        self._data_dir.record.unlink(missing_ok=True)
        await self._clients.listen(self._data_dir.client_socket)
        services = asyncio.create_task(self._run_services(held))
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait((services, stopping), return_when=asyncio.FIRST_COMPLETED)
            if services.done():
                services.result()
        finally:
            stopping.cancel()
            await self._stop(services)

    async def _run_services(self, held: ExitStack) -> None:
        """Start all services and keep them running; tell the clients of an error, and raise it."""
        try:
            planner = StackPlanner(self._settings, self._data_dir, held)
            await self._run_plan(await planner.plan(self._worker))
        except AfterwordError as error:
            self._clients.broadcast("failed", _failure_message(error))
            raise

    async def _run_plan(self, plan: StackPlan) -> None:
        self._groups = [
            [SupervisedProcess(service, self._data_dir, self._on_state) for service in group]
            for group in plan.groups
        ]
        first, *others = self._groups
        try:
            async with asyncio.TaskGroup() as tasks:
                await _start(first, tasks)
                await _start(chain.from_iterable(others), tasks)
                self._announce_ready(plan.env)
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # the first failure cancelled the other tasks

    async def _stop(self, services: asyncio.Task[None]) -> None:
        """Stop all services, in the reverse order of their start."""
        self._begin_stop()
        self._data_dir.client_socket.unlink(missing_ok=True)
        self._data_dir.record.unlink(missing_ok=True)
        services.cancel()
        await asyncio.wait((services,))
        for group in reversed(self._groups):
            await asyncio.gather(*(process.stop() for process in group))

    def _announce_ready(self, env: Mapping[str, str]) -> None:
        self._env = dict(env)
        self._write_record(self._env)
        names = service_names(self._settings)
        ready = {"ready": True, "env": self._env, "services": names}
        settings = fingerprints.of_settings(self._settings)
        self._clients.broadcast("ready", ready | {"settings": settings})

    def _on_state(self, service: str, state: str, detail: str | None) -> None:
        logger.info("%s %s %s", service, state, detail or "")
        message = {"service": service, "state": state, "detail": detail}
        self._clients.broadcast(service, message)
        if state == "ready" and self._env is not None:
            self._write_record(self._env)  # a restarted service has another process id

    def _write_record(self, env: Mapping[str, str]) -> None:
        processes = chain.from_iterable(self._groups)
        self._data_dir.write_record(
            {
                "pid": os.getpid(),
                "socket": str(self._data_dir.client_socket),
                "env": env,
                "services": {process.service.name: process.pid for process in processes},
            }
        )


async def _start(processes: Iterable[SupervisedProcess], tasks: asyncio.TaskGroup) -> None:
    """Start these processes side by side; return when all are ready."""
    started = [(process, tasks.create_task(process.keep_running())) for process in processes]
    for process, _ in started:
        await process.ready.wait()


def _failure_message(error: AfterwordError) -> dict[str, str | None]:
    if isinstance(error, Misconfigured):
        return {"failed": error.reason, "setting": error.setting}
    return {"failed": str(error), "setting": None}


def _accepts(path: Path) -> bool:
    """Return whether a supervisor accepts connections at this socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
    return True


def _daemonize() -> None:
    """Leave the session of the client's terminal; only the client socket ties us to it."""
    if os.fork():
        os._exit(0)
    os.setsid()
    os.umask(0o077)


def _set_up_logging(settings: Settings) -> None:
    """Log to standard error, in the format of the workers."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(settings.log_format))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def main(worker: WorkerCommand = celery_worker) -> None:
    """Run in the background the stack that the settings in the environment ask for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--client", type=int, required=True, help="descriptor of a socket pair")
    client = socket.socket(fileno=parser.parse_args().client)
    settings = Settings.load()
    data_dir = DataDir.open(settings.data_dir)
    _daemonize()
    _set_up_logging(settings)
    try:
        asyncio.run(Stack(settings, data_dir, worker).run(client))
    except AfterwordError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message says it all
        sys.exit(1)


if __name__ == "__main__":
    main()
