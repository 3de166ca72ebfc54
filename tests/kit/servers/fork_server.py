"""Starts Python programs by forking a process that has already imported what they need.

A worker that is started as a program spends seconds of CPU importing mem0 and the Anthropic SDK, a
command of ours half a second. The tests start hundreds of each. What is forked takes the arguments
of a program, has its environment and its streams, and imports the rest by itself.
"""

from __future__ import annotations

import atexit
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import ModuleType
from typing import IO, Any, NoReturn, Self

from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy
from tests.kit.waiting import wait_until

#: Larger than the arguments and the environment of any program that a test starts.
_ORDER_BYTES = 1 << 17

#: Our command, as a program is started.
COMMAND = (sys.executable, "-P", "-c", "from afterword.producer.cli.main import main; main()")

#: What workers, commands and stand-ins import, also those parts that they import late.
_IMPORTED_BY_MOST = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.strategy",
    "celery.app.control",
    "celery.backends.base",
    "afterword.producer.cli.main",
    "afterword.workers.adapters.claude.client",
    "afterword.workers.adapters.mem0.hosted",
    "afterword.workers.adapters.mem0.platform_client",
    "afterword.workers.adapters.mem0.sqlite.recipe",
    "afterword.workers.adapters.mem0.sqlite.embedder",
    "afterword.workers.adapters.mem0.sqlite.store",
    "afterword.workers.celery_runtime.host",
    "afterword.workers.wiring",
    "httpcore2",
    "mem0.memory.main",
    "tests.kit.claude_api.scripted_answers",
    "tests.kit.mem0_api.server",
    "tests.kit.servers.stand_in_process",
)


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
    """Starts programs, each in a process of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-forks-")
        self._orders, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        ours = self._theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(ours), self._folder.name],
            stdin=subprocess.DEVNULL,
            pass_fds=[ours],
        )
        self._theirs.close()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._orders.close()
        self._process.wait(timeout=60)
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
        assert len(order) < _ORDER_BYTES, "too long for one message"
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


def _serve(orders: socket.socket, folder: Path) -> None:
    """Fork a program for every order, until there are no more."""
    gc.disable()
    make_mem0_import_lazy()
    for module in _IMPORTED_BY_MOST:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a fork would leave threads behind"
    # Garbage collection in a fork, and its end, would otherwise go through all of that.
    gc.freeze()
    gc.enable()
    numbers: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, functools.partial(_note_exits, folder, numbers))
    for number in range(sys.maxsize):
        order, streams, _, _ = socket.recv_fds(orders, _ORDER_BYTES, 3)
        if not order:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(json.loads(order), streams)
        numbers[pid] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for stream in streams:
            os.close(stream)
        orders.send(f"{pid} {number}".encode())


def _become(order: dict[str, Any], streams: Sequence[int]) -> None:
    """Become the program: have its streams and its environment, run it and end."""
    for ours, stream in enumerate(streams):
        os.dup2(stream, ours)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.execve = _go_on_as  # type: ignore[assignment]
    _go_on_as(sys.executable, [sys.executable, *order["arguments"]], order["env"])


def _go_on_as(path: str, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Do as `os.execve` does, without importing everything anew."""
    assert path == argv[0] == sys.executable, "only Python can be forked"
    whole = dict(env)  # which may be what is cleared
    os.environ.clear()
    os.environ.update(whole)
    arguments = argv[2:] if argv[1] == "-P" else argv[1:]
    _run(arguments)
    sys.exit()


def _run(arguments: Sequence[str]) -> None:
    """Run a program as the interpreter would that was started with these arguments."""
    match arguments:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", script, *rest]:
            sys.argv = ["-c", *rest]
            program = sys.modules["__main__"] = ModuleType("__main__")
            exec(script, vars(program))
        case [path, *_]:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(path).parent))
            runpy.run_path(path, run_name="__main__")


def _note_exits(folder: Path, numbers: dict[int, int], *_: object) -> None:
    """Write down the exit code of every child that has ended, in a file named by its number."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = numbers.pop(pid)
        noted = folder / f"{number}.new"
        noted.write_text(str(os.waitstatus_to_exitcode(status)))
        noted.rename(folder / str(number))


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])), Path(sys.argv[2]))
