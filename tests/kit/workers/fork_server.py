"""Starts Celery workers by forking a process that has already imported what they need.

A worker that is started as a program spends seconds of CPU importing mem0 and the Anthropic SDK.
The tests start hundreds.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.kit.process_inspection import alive
from tests.kit.waiting import wait_until

REAL_APP = "afterword.workers.app:app"


class ForkedProcess:
    """A worker; takes the same calls as `subprocess.Popen`."""

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
        if self.poll() is None:
            os.kill(self.pid, how)

    def kill(self) -> None:
        """End the process at once, unless it has ended."""
        self.send_signal(signal.SIGKILL)


class WorkerForkServer:
    """Starts workers: `celery worker` on our app, each a process with a log of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-forks-")
        self._children: list[int] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.workers.fork_server", self._folder.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self.kill_all()
        self._process.communicate(timeout=60)
        self._folder.cleanup()

    def start(self, environ: dict[str, str], log: Path, *arguments: str) -> int:
        """Start a worker and return its process id; it is not ready yet."""
        pid = self.fork(environ, log, ["-A", REAL_APP, "worker", *arguments]).pid
        self._children.append(pid)
        return pid

    def fork(self, environ: dict[str, str], log: Path, arguments: Sequence[str]) -> ForkedProcess:
        """Run `celery` with these arguments; the caller ends it."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {
            "environ": os.environ | environ,
            "log": str(log),
            "arguments": ["celery", *arguments],
        }
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            pid, number = self._process.stdout.readline().split()
        return ForkedProcess(int(pid), Path(self._folder.name, number))

    def kill_all(self) -> None:
        """End every worker that still runs."""
        for pid in list(self._children):
            self.kill(pid)

    def kill(self, pid: int) -> None:
        """End a worker, if it still runs."""
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not alive(pid), "a worker is gone")
        self._children.remove(pid)


@functools.cache
def shared_fork_server() -> WorkerForkServer:
    """Return the fork server of this process, which is started once and ends with it."""
    server = WorkerForkServer().__enter__()
    atexit.register(server.__exit__)
    return server


def _become_worker(order: dict[str, object]) -> None:
    """Become the worker."""
    os.environ.clear()
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    from celery.__main__ import main

    sys.argv = order["arguments"]  # type: ignore[assignment]
    main()


def _serve(folder: Path) -> None:
    """Fork a worker for every line, until there are no more."""
    import anthropic  # noqa: F401
    import celery.bin.worker  # noqa: F401

    import afterword.workers.adapters.claude.client
    from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy

    make_mem0_import_lazy()
    import afterword.workers.adapters.mem0.platform_client
    import afterword.workers.adapters.mem0.sqlite.recipe
    import afterword.workers.wiring  # noqa: F401

    assert threading.active_count() == 1, "a fork would leave threads behind"
    numbers: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, functools.partial(_note_exits, folder, numbers))
    for number, line in enumerate(sys.stdin):
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
            _become_worker(json.loads(line))
        numbers[pid] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        print(pid, number, flush=True)


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
    _serve(Path(sys.argv[1]))
