"""A real worker in a process of its own, with the jobs of `tests.kit.workers.probe_app`."""

from __future__ import annotations

import os
import signal
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from celery import Celery
from redis import Redis

from afterword.shared.broker import make_app
from afterword.shared.names import REPLIES, RUN_TASK
from afterword.shared.settings import Settings
from tests.kit.ledger.hint_messages import hint_list, hint_message
from tests.kit.servers.fork_server import ForkedProcess, shared_fork_server
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import worker_command

#: The list that jobs note in, and the one whose first element releases those that are held.
SEEN = "probe:seen"
RELEASE = "probe:release"

#: The channel on which it hears commands of Celery's remote control.
CONTROL_CHANNEL = "afterword:/0.celery.pidbox"

_PATIENCE_S = 60.0


class ProbeWorker:
    """One worker on a Valkey; its broker may be another one. A context manager that kills it."""

    def __init__(
        self, server: Valkey, *arguments: str, broker: Valkey | None = None, **environ: str
    ) -> None:
        """Take more arguments of `celery worker`, and what to set in its environment."""
        self._broker = broker or server
        self._arguments = arguments
        self._environ = {
            "AFTERWORD_REDIS_URL": server.url,
            "AFTERWORD_BROKER_URL": self._broker.url,
            **environ,
        }
        self._log = Path(tempfile.mkstemp(prefix="afterword-worker-")[1])
        self._process: ForkedProcess | None = None
        self.redis: Redis = server.client()

    def start(self) -> Self:
        """Start it and wait until it is ready."""
        self.launch()
        wait_until(self._is_ready, "the worker is ready", _PATIENCE_S)
        return self

    def launch(self) -> Self:
        """Start it and do not wait."""
        argv = worker_command(
            "tests.kit.workers.probe_app:app", "--loglevel", "INFO", *self._arguments
        )
        env = os.environ | self._environ
        with self._log.open("wb") as log:
            self._process = shared_fork_server().fork(argv, env, stdout=log, stderr=log)
        return self

    @property
    def process(self) -> ForkedProcess:
        """Return the process."""
        assert self._process is not None, "not started"
        return self._process

    @property
    def log(self) -> str:
        """Return what it said until now."""
        return self._log.read_text()

    @property
    def seen(self) -> list[str]:
        """Return what its jobs noted until now."""
        return [str(line) for line in self.redis.lrange(SEEN, 0, -1)]

    @property
    def threads(self) -> int:
        """Return how many threads it has."""
        return len(list(Path(f"/proc/{self.process.pid}/task").iterdir()))

    @cached_property
    def app(self) -> Celery:
        """Return an app that speaks to its broker, e.g. for remote control."""
        return make_app(Settings.load(self._environ))

    def hint(self, job_id: str, *, task: str = RUN_TASK) -> None:
        """Send a hint of a job that will have the same id in Celery."""
        message = hint_message(RUN_TASK, job_id, job_id).replace(RUN_TASK, task)
        with self._broker.client() as client:
            client.lpush(hint_list(REPLIES), message)

    def release(self) -> None:
        """Let the jobs end that are held."""
        self.redis.rpush(RELEASE, "now")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return what it answers to a command of Celery's remote control."""
        answers = self.app.control.broadcast(
            command, arguments=arguments, reply=True, timeout=_PATIENCE_S, limit=1
        )
        assert answers, f"no answer to {command}"
        return next(iter(answers[0].values()))

    def wait_for(self, *lines: str) -> None:
        """Wait until its jobs noted all these lines; fail if it dies instead."""
        wanted = set(lines)
        wait_until(lambda: self._lives() and wanted <= set(self.seen), f"{lines}", _PATIENCE_S)

    def wait_for_log(self, text: str) -> None:
        """Wait until it said something."""
        wait_until(lambda: text in self.log, f"{text!r} logged", _PATIENCE_S)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal, and return its exit code."""
        self.process.send_signal(how)
        return self.exit_code()

    def exit_code(self) -> int:
        """Wait for its end, and return its exit code."""
        return self.process.wait(_PATIENCE_S)

    def __enter__(self) -> Self:
        if self._process is not None:
            return self
        try:
            return self.start()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(_PATIENCE_S)
        self.redis.close()
        self._log.unlink()

    def _is_ready(self) -> bool:
        return self._lives() and " ready." in self.log

    def _lives(self) -> bool:
        assert self.process.poll() is None, self.log
        return True
