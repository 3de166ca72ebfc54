"""What the stack is made of: what runs, with what it is told, and when it counts as ready."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from afterword.shared.environment import variable
from afterword.shared.errors import Misconfigured
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from afterword.workers.local_stack import environment, locks, valkey
from afterword.workers.local_stack import model_server as model
from afterword.workers.local_stack import sd_notify as notify
from afterword.workers.local_stack.data_dir import Folder
from afterword.workers.local_stack.process import Part

VALKEY = "valkey"
MODEL = "model"

#: Returns the command line of the worker of one queue.
WorkerCommand = Callable[[str], tuple[str, ...]]

_LOOK_AGAIN_S = 0.02
#: Valkey reads its whole file before it is ready; it was killed a moment ago at worst.
_LOAD_S = 300.0
_START_S = 90.0
_FREED_S = 5.0
_STOP_S = 5.0


def names(settings: Settings) -> list[str]:
    """Return what these settings need to run here; what they name elsewhere is left out."""
    needed = {
        VALKEY: settings.redis_url is None,
        # A base URL of the user's own is theirs, with or without a key.
        MODEL: settings.model_fields_set.isdisjoint({"anthropic_api_key", "anthropic_base_url"}),
        REPLIES: True,
        MEMORIES: settings.backend != "off",
    }
    return [name for name, wanted in needed.items() if wanted]


def celery_worker(queue: str) -> tuple[str, ...]:
    """Return the command line of an ordinary Celery worker for one queue."""
    worker = ("-m", "celery", "-A", "afterword.workers.app:app", "worker", "-Q", queue)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return _python(*worker, "-n", f"{queue}-{os.getpid()}@%h", *quiet)


def _python(*arguments: str) -> tuple[str, ...]:
    # -P: a folder `workers` where the user happens to be is not ours.
    return (sys.executable, "-P", *arguments)


@dataclass(frozen=True, slots=True)
class Assembly:
    """All parts, and how they are reached.

    `stages` are in the order in which they depend on each other; the first one is what all
    others cannot start without.
    """

    stages: tuple[tuple[Part, ...], ...]
    served: Mapping[str, str]


class Assembler:
    """Puts the parts of one stack together; what they hold meanwhile is closed with `held`."""

    def __init__(self, settings: Settings, folder: Folder, held: ExitStack) -> None:
        """Take what the user has set; the rest is made here."""
        self._settings = settings
        self._folder = folder
        self._held = held
        self._served = {variable("data_dir"): str(folder.root)}

    async def assemble(self, worker: WorkerCommand) -> Assembly:
        """Return all parts; raise `Misconfigured` for what is not installed or not to be had."""
        needed = names(self._settings)
        ledger = (await self._valkey(),) if VALKEY in needed else ()
        answers = (self._model(),) if MODEL in needed else ()
        if self._settings.backend == "embedded":
            self._served[variable("memory")] = "embedded"
        queues = [name for name in (REPLIES, MEMORIES) if name in needed]
        workers = tuple(self._worker(queue, worker(queue)) for queue in queues)
        return Assembly((ledger, answers, workers), self._served)

    async def _valkey(self) -> Part:
        """Take the lock that this Valkey will hold for as long as it lives."""
        command = valkey.command(self._folder, self._settings.durability)
        path = self._folder.valkey / "lock"
        lock = await locks.hold(path, _FREED_S, unless=lambda: False)
        if lock is None:
            raise Misconfigured(variable("data_dir"), f"another Valkey still uses {path.parent}")
        self._held.callback(os.close, lock)
        self._served[valkey.SETTING] = valkey.url(self._folder)
        return Part(
            VALKEY, command, environment.bare(), self._valkey_ready, _LOAD_S, _STOP_S, (lock,)
        )

    async def _valkey_ready(self) -> None:
        while not await valkey.answers(valkey.socket_of(self._folder)):  # noqa: ASYNC110 - says nothing
            await asyncio.sleep(_LOOK_AGAIN_S)

    def _model(self) -> Part:
        """Reserve the port of the model, under a key of this start of the stack."""
        model.weights()
        port = self._held.enter_context(socket.socket())
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        port.bind((model.HOST, 0))
        number, key = port.getsockname()[1], secrets.token_urlsafe(32)
        self._served |= {"ANTHROPIC_BASE_URL": model.url(number), model.SETTING: key}
        self._served |= model.CLIENT
        self._served |= {
            variable(name): str(limit)
            for name, limit in model.LIMITS.items()
            if name not in self._settings.model_fields_set
        }
        command = _python("-m", "afterword.workers.local_stack.model_server", "--port", str(number))
        return self._python_part(MODEL, command, {model.SETTING: key}, _STOP_S)

    def _worker(self, queue: str, command: Sequence[str]) -> Part:
        told = environment.of(self._settings) | self._served
        return self._python_part(queue, command, told, self._settings.drain_s + _STOP_S)

    def _python_part(
        self, name: str, command: Sequence[str], told: Mapping[str, str], stop_within_s: float
    ) -> Part:
        ear = self._held.enter_context(closing(notify.Ear(self._folder.sockets / f"{name}.notify")))
        all_told = environment.bare() | dict(told) | {notify.VARIABLE: str(ear.path)}
        return Part(name, tuple(command), all_told, ear.ready, _START_S, stop_within_s)
