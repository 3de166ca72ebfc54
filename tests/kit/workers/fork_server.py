"""Workers by the dozen: forked from a process that has imported already what they need.

A worker that is started the common way takes seconds to import mem0 and Anthropic's SDK; a sweep
over every step of a life starts hundreds.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from tests.kit.process_inspection import alive
from tests.kit.waiting import wait_until


class WorkerForkServer:
    """Starts workers: `celery worker` on our app, each a process with a log of its own."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._children: list[int] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.workers.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self.kill_all()
        self._process.communicate(timeout=10)

    def start(self, environ: dict[str, str], log: Path, *arguments: str) -> int:
        """Start a worker and return its process id; it is not ready yet."""
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"environ": environ, "log": str(log), "arguments": arguments}
        with self._lock:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            pid = int(self._process.stdout.readline())
        self._children.append(pid)
        return pid

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


def _become_worker(order: dict[str, object]) -> None:
    """Become the worker."""
    os.environ.update(order["environ"])  # type: ignore[call-overload]
    log = os.open(str(order["log"]), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with open(os.devnull) as nothing:  # noqa: PTH123 - a descriptor is wanted
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    from celery.__main__ import main

    sys.argv = ["celery", "-A", "afterword.workers.app:app", "worker", *order["arguments"]]  # type: ignore[misc]
    main()


def _serve() -> None:
    """Fork a worker for every line, until there are no more."""
    import anthropic  # noqa: F401
    import celery.bin.worker  # noqa: F401

    import afterword.workers.adapters.claude.client
    from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy

    make_mem0_import_lazy()
    import afterword.workers.adapters.mem0.platform_client
    import afterword.workers.wiring  # noqa: F401

    assert threading.active_count() == 1, "a fork would leave threads behind"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become_worker(json.loads(line))
        print(pid, flush=True)


if __name__ == "__main__":
    _serve()
