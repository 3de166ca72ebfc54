"""A worker of somebody else's Celery app, on a Redis that it shares with ours."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Self

from tests.kit.servers.fork_server import ForkedProcess, shared_fork_server
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import worker_command
from tests.kit.workers.plain_app import ADD, QUEUES, make_plain_app

NODE = "plain@localhost"

_PATIENCE_S = 60.0


class PlainWorker:
    """One worker, and its app to speak to it; a context manager that ends it."""

    def __init__(self, url: str) -> None:
        self.app = make_plain_app(url)
        self._url = url
        self._process: ForkedProcess | None = None
        self._log = Path(tempfile.mkstemp(prefix="afterword-plain-")[1])

    @property
    def process(self) -> ForkedProcess:
        """Return the process."""
        assert self._process is not None, "not started"
        return self._process

    def add(self, queue: str) -> int:
        """Let it add one and two, sent through a queue; return its result."""
        return int(self.app.send_task(ADD, (1, 2), queue=queue).get(timeout=_PATIENCE_S))

    def __enter__(self) -> Self:
        argv = worker_command(
            "tests.kit.workers.plain_app:app", "-P", "threads", "-c", "1", "-n", NODE, "-E"
        )
        env = os.environ | {"PLAIN_REDIS_URL": self._url}
        with self._log.open("wb") as log:
            self._process = shared_fork_server().fork(argv, env, stdout=log, stderr=log)
        try:
            wait_until(self._answers, "the plain worker answers", _PATIENCE_S)
        except BaseException:
            self.process.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(_PATIENCE_S)
        self.app.close()
        self._log.unlink()

    def _answers(self) -> bool:
        assert self.process.poll() is None, self._log.read_text()
        found = self.app.control.inspect([NODE], timeout=1, limit=1).active_queues() or {}
        return {queue["name"] for queue in found.get(NODE, ())} == set(QUEUES)
