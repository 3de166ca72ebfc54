"""Attaches to the local stack: joins the one that is running, or starts it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from afterword.shared.closeable import Closeable
from afterword.shared.environment import variable
from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Settings
from afterword.workers.local_stack import environment, fingerprints
from afterword.workers.local_stack.client_socket import STOPPED_WITHIN_S, StackFailed
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.local_stack.services import MODEL, service_names

#: Called with `{"service": ..., "state": ..., "detail": ... or None}`, see `process.OnState`.
OnProgress = Callable[[Mapping[str, Any]], None]

SUPERVISOR = (sys.executable, "-P", "-m", "afterword.workers.local_stack.supervisor")

#: Other clients may start or stop the stack at the same time; then `attach` tries again.
_MAX_TRIES = 5


class Attached(Closeable):
    """An attachment to the running stack, which lives at least until this is closed.

    `env` holds the environment variables that lead to it, and those of the caller's settings;
    `differing` names those that are not what the stack was started with: it goes on without them.
    With `has_small_model`, replies come from the small model and not from Claude.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        differing: Sequence[str],
        services: Sequence[str],
        connection: socket.socket,
        messages: Iterator[Mapping[str, Any]],
        held: ExitStack,
    ) -> None:
        """Read further `messages` of the stack, and close `held` at the end."""
        self.env = dict(env)
        self.differing = tuple(differing)
        self.has_small_model = MODEL in services
        self._connection = connection
        self._messages = messages
        self._held = held

    def wait(self) -> None:
        """Wait until the stack has stopped; raise `StackFailed` if it failed."""
        for _ in self._messages:
            pass

    def leave(self) -> None:
        """Leave the stack at once; if this was the last client, it stops in the background."""
        self._held.close()

    def close(self) -> None:
        """Leave the stack; if this was the last client, wait until the stack has stopped."""
        with self._held, suppress(OSError, StackFailed):
            self._connection.settimeout(STOPPED_WITHIN_S)
            self._connection.shutdown(socket.SHUT_WR)
            self.wait()


def attach(
    settings: Settings,
    on_progress: OnProgress = lambda _: None,
    *,
    supervisor: Sequence[str] = SUPERVISOR,
) -> Attached:
    """Join the stack of this data directory, starting it if necessary; return when it is ready.

    Raises `Misconfigured` if it cannot run here or runs with other settings than these, and
    `StackFailed` if it does not start.
    """
    data_dir = DataDir.open(settings.data_dir)
    for _ in range(_MAX_TRIES):
        with ExitStack() as held:
            connection = held.enter_context(
                _join(data_dir) or _start(data_dir, settings, supervisor)
            )
            messages = _read_messages(held.enter_context(connection.makefile("rb")), on_progress)
            ready = next((message for message in messages if "ready" in message), None)
            if ready is not None:
                differing = fingerprints.differing(ready["settings"], settings)
                _check_same_services(ready["services"], settings, differing)
                env = environment.from_settings(settings) | ready["env"]
                return Attached(
                    env, differing, ready["services"], connection, messages, held.pop_all()
                )
        # That stack was stopping, or found that another one is running.
    log = data_dir.logs / "stack.log"
    raise StackFailed(f"the local stack did not start; the reason is at the end of {log}")


def _join(data_dir: DataDir) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(data_dir.client_socket))
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    return connection


def _start(data_dir: DataDir, settings: Settings, supervisor: Sequence[str]) -> socket.socket:
    """Start a supervisor in the background; return a connection to it as its first client."""
    env = environment.without_settings() | environment.from_settings(settings)
    env[variable("data_dir")] = str(data_dir.root)
    client_end, supervisor_end = socket.socketpair()
    with supervisor_end, data_dir.open_log("stack") as log:
        number = supervisor_end.fileno()
        subprocess.run(  # noqa: S603 - our own command line, no shell
            [*supervisor, "--client", str(number)],
            check=False,  # a supervisor that fails closes its end of the connection
            cwd=data_dir.run,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[number],
        )
    return client_end


def _read_messages(lines: Iterator[bytes], on_progress: OnProgress) -> Iterator[Mapping[str, Any]]:
    """Yield the stack's messages until it closes the connection; raise if it reports failure."""
    for line in _until_reset(lines):
        message = json.loads(line)
        if "failed" in message:
            raise _failure(message["failed"], message["setting"])
        if "service" in message:
            on_progress(message)
        yield message


def _until_reset(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines; a supervisor that ends before it has accepted us resets the connection."""
    with suppress(ConnectionResetError):
        yield from lines


def _failure(reason: str, setting: str | None) -> Exception:
    return Misconfigured(setting, reason) if setting else StackFailed(reason)


def _check_same_services(
    running_services: Sequence[str], settings: Settings, differing: Sequence[str]
) -> None:
    needed = service_names(settings)
    if sorted(running_services) != sorted(needed):
        raise Misconfigured(
            variable("data_dir"),
            f"the local stack running there was started with another {', '.join(differing)}: it "
            f"has {', '.join(running_services)}, but these settings need {', '.join(needed)}; end "
            "the commands that use that stack, or set another directory",
        )
