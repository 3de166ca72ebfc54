"""Workers that are forked, and known by their process ids alone."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.kit.process_inspection import alive
from tests.kit.servers.fork_server import ForkedProcess, shared_fork_server
from tests.kit.waiting import wait_until

REAL_APP = "afterword.workers.app:app"

#: Workers of the next record version.
NEWER_APP = "tests.kit.workers.newer_app:app"


def worker_command(app: str, *arguments: str) -> list[str]:
    """Return the command line that starts a worker of an app."""
    return [sys.executable, "-m", "celery", "-A", app, "worker", *arguments]


class ForkedWorkers:
    """Starts workers, each with a log of its own; as a context manager it ends them all."""

    def __init__(self) -> None:
        self._running: dict[int, ForkedProcess] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()

    def start(
        self, environ: Mapping[str, str], log_file: Path, *arguments: str, app: str = REAL_APP
    ) -> int:
        """Start a worker and return its process id; it is not ready yet."""
        with log_file.open("ab") as log:
            worker = shared_fork_server().fork(
                worker_command(app, *arguments), os.environ | environ, stdout=log, stderr=log
            )
        self._running[worker.pid] = worker
        return worker.pid

    def kill_all(self) -> None:
        """End every worker that still runs."""
        for pid in list(self._running):
            self.kill(pid)

    def stop(self, pid: int, patience_s: float) -> int:
        """Tell a worker to stop, as a supervisor does, and return its exit code."""
        worker = self._running.pop(pid)
        worker.terminate()
        return worker.wait(patience_s)

    def kill(self, pid: int) -> None:
        """End a worker, if it still runs."""
        self._running.pop(pid).kill()
        wait_until(lambda: not alive(pid), "a worker is gone")
