"""A program on a pseudo-terminal, as a person uses it: what it shows, and keys that are pressed."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Self

from tests.kit.waiting import wait_until

CTRL_C = "\x03"
CTRL_D = "\x04"
ENTER = "\r"
UP = "\x1b[A"

_PATIENCE_S = 15.0

#: What moves the cursor, colours, or asks the terminal something.
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][0-9A-B]|[=>78M])")


def pasted(text: str) -> str:
    """Return what a terminal sends for a text that is pasted at once."""
    return f"\x1b[200~{text}\x1b[201~"


class PseudoTerminal:
    """Runs one program on a terminal of its own; what it prints is read as it comes."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], term: str = "xterm") -> None:
        """Start it; it is not asked where the cursor is, since nobody answers."""
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv,
            env={**env, "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1"},
            preexec_fn=lambda: os.login_tty(theirs),  # noqa: PLW1509 the terminal becomes its own
        )
        os.close(theirs)
        self._raw = b""
        self._seen = 0

    @property
    def shown(self) -> str:
        """Return all that it has printed, without what moves the cursor."""
        self._read()
        return _CONTROL.sub("", self._raw.decode(errors="replace")).replace("\r", "")

    def until(self, text: str) -> str:
        """Wait until it prints a text after what the last call returned; return what came."""
        wait_until(lambda: text in self._unseen(), f"{text!r} is shown", _PATIENCE_S)
        came = self._unseen()
        end = came.index(text) + len(text)
        self._seen += end
        return came[:end]

    def press(self, keys: str | bytes) -> None:
        """Press keys; what the terminal cannot take at once follows when the program has read."""
        left = keys.encode() if isinstance(keys, str) else keys
        while left:
            self._read()
            _, ready, _ = select.select([], [self._ours], [], 0.05)
            if ready:
                left = left[os.write(self._ours, left[:512]) :]

    def ended(self) -> int:
        """Return its exit code once it has ended; what it still prints is read meanwhile."""
        wait_until(self._has_ended, "it ends", _PATIENCE_S)
        return self._process.returncode

    def _has_ended(self) -> bool:
        self._read()
        return self._process.poll() is not None

    def _unseen(self) -> str:
        return self.shown[self._seen :]

    def _read(self) -> None:
        while select.select([self._ours], [], [], 0)[0]:
            try:
                self._raw += os.read(self._ours, 65536)
            except OSError:  # the other end is closed
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        os.close(self._ours)
