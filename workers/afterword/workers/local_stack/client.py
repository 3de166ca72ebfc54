"""The way to the embedded stack: join the one that runs, or start it, and hold on to it."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import Any

from afterword.shared.closing import Closeable
from afterword.shared.discovery import running_stack
from afterword.shared.environment import variable
from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Settings
from afterword.workers.local_stack import environment
from afterword.workers.local_stack import services as parts
from afterword.workers.local_stack.client_socket import STOPPED_WITHIN_S, StackFailed
from afterword.workers.local_stack.data_dir import Folder

#: Gets `{"step": ..., "state": "starting" | "ready" | "failed", "detail": ... or None}`.
OnProgress = Callable[[Mapping[str, Any]], None]

SUPERVISOR = (sys.executable, "-P", "-m", "afterword.workers.local_stack.supervisor")

#: Other clients start and stop the stack at the same time; nobody loses this often by chance.
_MAX_TRIES = 5


class Attached(Closeable):
    """A hold on the running stack: it lives at least as long as this is open.

    `env` are the variables that lead to it, together with those of our own settings.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        line: socket.socket,
        words: Iterator[Mapping[str, Any]],
        held: ExitStack,
    ) -> None:
        """Let go of what is `held` in the end; `words` is what the stack still has to say."""
        self.env = dict(env)
        self._line = line
        self._words = words
        self._held = held

    def wait(self) -> None:
        """Return when the stack has ended; raise `StackFailed` if it broke."""
        for _ in self._words:
            pass

    def close(self) -> None:
        """Let go; if nobody else holds the stack, return once it has stopped."""
        with self._held, suppress(OSError, StackFailed):
            self._line.settimeout(STOPPED_WITHIN_S)
            self._line.shutdown(socket.SHUT_WR)
            self.wait()


def attach(
    settings: Settings,
    on_progress: OnProgress = lambda _: None,
    *,
    supervisor: Sequence[str] = SUPERVISOR,
) -> Attached:
    """Hold on to the stack of this data folder, started if need be; return once it is ready.

    Raises `Misconfigured` if it cannot be run here, or runs for other settings than ours, and
    `StackFailed` if it does not come up.
    """
    folder = Folder.open(settings.data_dir)
    for _ in range(_MAX_TRIES):
        with ExitStack() as held:
            line = held.enter_context(_join(folder) or _start(folder, settings, supervisor))
            words = _words(held.enter_context(line.makefile("rb")), on_progress)
            served = next((word for word in words if "ready" in word), None)
            if served is not None:
                _check_same(served["parts"], settings)
                env = environment.of(settings) | served["env"]
                return Attached(env, line, words, held.pop_all())
        # It was stopping, or it left the field to another one: look again.
    raise StackFailed(f"the stack does not come up; see {folder.logs / 'stack.log'}")


def running(settings: Settings) -> dict[str, str] | None:
    """Return the variables that lead to the running stack, None if none is ready."""
    return running_stack(settings.data_dir)


def _join(folder: Folder) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX)
    try:
        line.connect(str(folder.lifeline))
    except (FileNotFoundError, ConnectionRefusedError):
        line.close()
        return None
    return line


def _start(folder: Folder, settings: Settings, supervisor: Sequence[str]) -> socket.socket:
    """Start a supervisor in the background; return our end of its first client's line."""
    told = environment.bare() | environment.of(settings) | {variable("data_dir"): str(folder.root)}
    ours, theirs = socket.socketpair()
    with theirs, folder.log("stack") as log:
        number = theirs.fileno()
        subprocess.run(  # noqa: S603 - our own command line, no shell
            [*supervisor, "--client", str(number)],
            check=False,  # a supervisor that fails hangs up, like one that has to
            cwd=folder.run,
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[number],
        )
    return ours


def _words(lines: Iterator[bytes], on_progress: OnProgress) -> Iterator[Mapping[str, Any]]:
    """Give each word of the stack until it hangs up; raise if it says that it failed."""
    for line in _until_reset(lines):
        word = json.loads(line)
        if "failed" in word:
            raise _failure(word["failed"], word["setting"])
        if "step" in word:
            on_progress(word)
        yield word


def _until_reset(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Give the lines; a supervisor that goes before it has taken us resets the line."""
    with suppress(ConnectionResetError):
        yield from lines


def _failure(reason: str, setting: str | None) -> Exception:
    return Misconfigured(setting, reason) if setting else StackFailed(reason)


def _check_same(running_parts: Sequence[str], settings: Settings) -> None:
    wanted = parts.names(settings)
    if sorted(running_parts) != sorted(wanted):
        raise Misconfigured(
            variable("data_dir"),
            f"a stack runs there with {', '.join(running_parts)}, but these settings want "
            f"{', '.join(wanted)}; stop it, or use another folder",
        )
