"""The services of the stack: which ones are needed, how each is started, when it is ready."""

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
from afterword.shared.listen_address import ListenAddress
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from afterword.workers import sd_notify
from afterword.workers.local_stack import environment, locks, model_server, valkey
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.local_stack.process import Service

VALKEY = "valkey"
MODEL = "model"

#: Returns the command line of the worker for a queue.
WorkerCommand = Callable[[str], tuple[str, ...]]

_POLL_S = 0.02
#: Valkey loads its whole file before it is ready.
_LOAD_WITHIN_S = 300.0
_START_WITHIN_S = 90.0
_UNLOCKED_WITHIN_S = 5.0
_STOP_WITHIN_S = 5.0


def service_names(settings: Settings) -> list[str]:
    """Return the services that these settings need: those they do not place elsewhere."""
    needed = {
        VALKEY: settings.redis_url is None,
        # A base URL names a server of the user's, with or without a key.
        MODEL: settings.model_fields_set.isdisjoint({"anthropic_api_key", "anthropic_base_url"}),
        REPLIES: True,
        MEMORIES: settings.backend != "off",
    }
    return [name for name, wanted in needed.items() if wanted]


def celery_worker(queue: str) -> tuple[str, ...]:
    """Return the command line of a Celery worker for one queue."""
    worker = ("-m", "celery", "-A", "afterword.workers.app:app", "worker", "-Q", queue)
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return _python(*worker, "-n", f"{queue}-{os.getpid()}@%h", *quiet)


def _python(*arguments: str) -> tuple[str, ...]:
    # -P: do not import from the current directory.
    return (sys.executable, "-P", *arguments)


@dataclass(frozen=True, slots=True)
class StackPlan:
    """The services to run, and the environment variables that lead clients to them.

    The services of a group need those of the groups before it. Nothing can start without the
    first group.
    """

    groups: tuple[tuple[Service, ...], ...]
    env: Mapping[str, str]


class StackPlanner:
    """Plans the services of one stack, and reserves in `held` the lock and sockets they need."""

    def __init__(self, settings: Settings, data_dir: DataDir, held: ExitStack) -> None:
        self._settings = settings
        self._data_dir = data_dir
        self._held = held
        self._env = {variable("data_dir"): str(data_dir.root)}

    async def plan(self, worker: WorkerCommand) -> StackPlan:
        """Return the plan; raise `Misconfigured` for what is not installed or in use."""
        needed = service_names(self._settings)
        ledger = (await self._valkey(),) if VALKEY in needed else ()
        model = (self._model(),) if MODEL in needed else ()
        if self._settings.backend == "embedded":
            self._env[variable("memory")] = "embedded"
        queues = [name for name in (REPLIES, MEMORIES) if name in needed]
        workers = tuple(
            self._worker(queue, worker(queue), number) for number, queue in enumerate(queues)
        )
        return StackPlan((ledger, model, workers), self._env)

    async def _valkey(self) -> Service:
        """Acquire the lock that this Valkey will hold for as long as it runs."""
        command = valkey.command(self._data_dir, self._settings.durability)
        path = self._data_dir.valkey / "lock"
        lock = await locks.acquire(path, _UNLOCKED_WITHIN_S, unless=lambda: False)
        if lock is None:
            raise Misconfigured(
                variable("data_dir"),
                f"another Valkey still uses {path.parent}: stop that process, then try again",
            )
        self._held.callback(os.close, lock)
        self._env[valkey.SETTING] = valkey.url(self._data_dir)
        return Service(
            VALKEY,
            command,
            environment.without_settings(),
            self._wait_for_valkey,
            _LOAD_WITHIN_S,
            _STOP_WITHIN_S,
            (lock,),
        )

    async def _wait_for_valkey(self) -> None:
        path = valkey.socket_path(self._data_dir)
        while not await valkey.is_ready(path):  # noqa: ASYNC110 - it does not report readiness
            await asyncio.sleep(_POLL_S)

    def _model(self) -> Service:
        """Reserve a port for the model, and create the key for this start of the stack."""
        model_server.find_weights()
        reserved = self._held.enter_context(socket.socket())
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind((model_server.HOST, 0))
        port, key = reserved.getsockname()[1], secrets.token_urlsafe(32)
        self._env |= {"ANTHROPIC_BASE_URL": model_server.url(port), model_server.SETTING: key}
        self._env |= model_server.CLIENT_ENV
        self._env |= {
            variable(name): default
            for name, default in model_server.DEFAULTS.items()
            if name not in self._settings.model_fields_set
        }
        command = _python("-m", "afterword.workers.local_stack.model_server", "--port", str(port))
        return self._python_service(MODEL, command, {model_server.SETTING: key}, _STOP_WITHIN_S)

    def _worker(self, queue: str, command: Sequence[str], number: int) -> Service:
        env = environment.from_settings(self._settings) | self._env
        if listen := self._settings.metrics_listen:
            env[variable("metrics_listen")] = _own_address(listen, number)
        stop_within_s = self._settings.drain_s + _STOP_WITHIN_S
        return self._python_service(queue, command, env, stop_within_s)

    def _python_service(
        self, name: str, command: Sequence[str], env: Mapping[str, str], stop_within_s: float
    ) -> Service:
        path = self._data_dir.sockets / f"{name}.notify"
        listener = self._held.enter_context(closing(sd_notify.ReadyListener(path)))
        env = environment.without_settings() | dict(env) | {sd_notify.VARIABLE: str(path)}
        return Service(name, tuple(command), env, listener.wait, _START_WITHIN_S, stop_within_s)


def _own_address(listen: str, number: int) -> str:
    """Return where the worker of a number serves metrics: two workers cannot share one port."""
    try:
        return str(ListenAddress.parse(listen).shifted(number))
    except ValueError as error:
        raise Misconfigured(variable("metrics_listen"), str(error)) from None
