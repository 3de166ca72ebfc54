"""Starts Python programs by forking a process that has already imported what they need.

A worker that is started as a program spends seconds of CPU importing mem0 and the Anthropic SDK, a
command of ours half a second. The tests start hundreds of each. What is forked takes the arguments
of a program, has its environment and its streams, and imports the rest by itself. All processes of
a test run share the process that is forked, see `tests.kit.servers.warm_process`.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any, Self

from tests.kit.servers import warm_process
from tests.kit.servers.warm_process import ORDER_BYTES
from tests.kit.waiting import wait_until

#: Our command, as a program is started.
COMMAND = (sys.executable, "-P", "-c", "from afterword.producer.cli.main import main; main()")


class ForkedProcess:
    """A program; takes the same calls as `subprocess.Popen`."""

    def __init__(self, pid: int, exit_file: Path) -> None:
        self.pid = pid
        self._exit_file = exit_file
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, or `None` while the process runs."""
        if self.returncode is None and self._exit_file.exists():
            self.returncode = int(self._exit_file.read_text())
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Return the exit code once the process has ended."""
        wait_until(lambda: self.poll() is not None, f"process {self.pid} ends", timeout)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, how: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        with suppress(ProcessLookupError):  # it ended, and that is not noted yet
            if self.poll() is None:
                os.kill(self.pid, how)

    def terminate(self) -> None:
        """Ask the process to end, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class TalkingProcess:
    """A program, and our ends of its standard input and output."""

    def __init__(self, process: ForkedProcess, stdin: IO[str], stdout: IO[str]) -> None:
        self.process = process
        self.stdin = stdin
        self.stdout = stdout

    def say(self, line: str) -> None:
        """Write a line to it."""
        print(line, file=self.stdin, flush=True)

    def rest(self, timeout: float) -> tuple[int, str]:
        """Write no more; return its exit code, and what it wrote that was not read."""
        self.stdin.close()
        with self.stdout:
            return self.process.wait(timeout), self.stdout.read()


class ForkServer:
    """Starts programs, each in a process of its own; a context manager that is open meanwhile."""

    def __init__(self) -> None:
        self._orders = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-forks-")
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        _connect(self._orders)
        self._orders.send(self._folder.name.encode())
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.close()
        self._folder.cleanup()

    def fork(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        *,
        stdin: IO[Any] | None = None,
        stdout: IO[Any],
        stderr: IO[Any],
    ) -> ForkedProcess:
        """Start what `subprocess.Popen` would start; the caller ends it."""
        interpreter, *arguments = argv
        assert interpreter == sys.executable, "only Python can be forked"
        order = json.dumps({"arguments": arguments, "env": dict(env)}).encode()
        assert len(order) < ORDER_BYTES, "too long for one message"
        with open(os.devnull) as nothing, self._lock:  # noqa: PTH123 a descriptor is wanted
            streams = [(stdin or nothing).fileno(), stdout.fileno(), stderr.fileno()]
            socket.send_fds(self._orders, [order], streams)
            pid, number = self._orders.recv(100).decode().split()
        return ForkedProcess(int(pid), Path(self._folder.name, number))

    def talk(self, argv: Sequence[str]) -> TalkingProcess:
        """Start a program that reads what we write and writes what we read."""
        their_in, our_out = os.pipe()
        our_in, their_out = os.pipe()
        with open(their_in) as stdin, open(their_out, "w") as stdout:  # noqa: PTH123 descriptors
            process = self.fork(argv, os.environ, stdin=stdin, stdout=stdout, stderr=sys.stderr)
        return TalkingProcess(process, open(our_out, "w"), open(our_in))  # noqa: PTH123

    def run(
        self, argv: Sequence[str], env: Mapping[str, str], said: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a program that reads what is said to it, and return how it ended."""
        with ExitStack() as files:
            read, out, err = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
            read.write(said or "")
            read.seek(0)
            code = self.fork(argv, env, stdin=read, stdout=out, stderr=err).wait(timeout)
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(argv, code, out.read(), err.read())


@functools.cache
def shared_fork_server() -> ForkServer:
    """Return the fork server of this process, which is started once and ends with it."""
    server = ForkServer().__enter__()
    atexit.register(server.__exit__)
    return server


def _connect(client: socket.socket) -> None:
    """Connect to the process that has imported everything; start it if no test process has."""
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    tree = zlib.crc32(__file__.encode())  # a test may test another tree
    folder = Path(tempfile.gettempdir(), f"afterword-warm-{run}-{tree:x}")
    folder.mkdir(mode=0o700, exist_ok=True)
    address = str(folder / "socket")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not Path(address).exists():
            command = [sys.executable, "-m", warm_process.__name__, str(folder)]
            pid = os.posix_spawn(sys.executable, command, os.environ)
            wait_until(
                lambda: Path(address).exists() or os.waitpid(pid, os.WNOHANG)[0],
                "what programs need is imported",
                60,
            )
    client.connect(address)
