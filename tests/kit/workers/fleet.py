"""Real workers on a real Valkey, with a stand-in of Claude and a data folder of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from celery import Celery

from afterword.shared.broker import make_app
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings
from tests.kit.claude_api.process import ClaudeProcess
from tests.kit.printed_json import assert_fits_schema
from tests.kit.servers.fork_server import COMMAND, ForkedProcess, shared_fork_server
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import REAL_APP, worker_command

Kind = Literal["responses", "memories"]
Ran = subprocess.CompletedProcess[str]

#: What tests put into every message, system text and reply: it must never be logged.
CANARY = "canary"

#: The workers as they are, and those whose memory a test can hold up or break.
MEMORY_FAULT_APP = "tests.kit.workers.memory_fault_app:app"

#: Those, and they do not wait a minute for what an operator has to mend.
BROKEN_SWEEP_APP = "tests.kit.workers.broken_sweep_app:app"
FAST_REPAIR_APP = "tests.kit.workers.fast_repair_app:app"

_QUEUE_OF = {"responses": REPLIES, "memories": MEMORIES}
_PATIENCE_S = 60.0

#: Times that make a test wait less than an operator would, and two that keep a busy machine from
#: deciding what a reply knows, or that Redis is away. A lease outlasts a worker that hardly gets a
#: share of the machine for a while; it is waited for only after a worker was killed.
_TIMES = {
    "AFTERWORD_SWEEP_S": "0.2",
    "AFTERWORD_LEASE_S": "6",
    "AFTERWORD_HINT_GRACE_S": "1",
    "AFTERWORD_RECALL_BUDGET_MS": "30000",
    "AFTERWORD_SUBMIT_TIMEOUT_S": "20",
    "AFTERWORD_LOG_LEVEL": "debug",
}


Process = subprocess.Popen[bytes] | ForkedProcess


class WorkerProcess:
    """One worker process; it says by itself when it is ready. That of another Python is no fork."""

    def __init__(
        self,
        kind: Kind,
        node: str,
        argv: Sequence[str],
        env: dict[str, str],
        folder: Path,
    ) -> None:
        self.kind = kind
        self.node = node
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = Path(tempfile.mkdtemp(dir=folder), "notify")
        self._ear.bind(str(notify))
        self._ear.setblocking(False)
        self.log_file = notify.with_name("log")
        env = env | {"NOTIFY_SOCKET": str(notify)}
        with self.log_file.open("wb") as log:
            start = shared_fork_server().fork if argv[0] == sys.executable else subprocess.Popen
            self.process: Process = start(argv, env=env, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.process.pid

    @property
    def log(self) -> str:
        """Return what it said until now."""
        return self.log_file.read_text()

    @property
    def threads(self) -> int:
        """Return how many threads it has."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))

    @property
    def runs(self) -> bool:
        """Return whether it has not ended."""
        return self.process.poll() is None

    def ready(self) -> Self:
        """Wait until it takes hints; fail with its log if it ends instead."""
        wait_until(self._said_ready, f"a worker for {self.kind} is ready", _PATIENCE_S)
        return self

    def send(self, how: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(how)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        self.send(how)
        return self.process.wait(_PATIENCE_S)

    def kill(self) -> None:
        """End it without a last word."""
        self.stop(signal.SIGKILL)

    def end(self) -> None:
        """End it, whatever state it is in, and stop listening."""
        if self.runs:
            self.send(signal.SIGCONT)  # one that was stopped could not hear the rest
            self.kill()
        self._ear.close()

    def _said_ready(self) -> bool:
        assert self.runs, self.log
        with suppress(BlockingIOError):
            return b"READY=1" in self._ear.recv(4096)
        return False


class Fleet:
    """Starts workers by kind and knows what everyone else needs to reach the same ledger.

    As a context manager it ends them all, and fails the test if one of them logged content.
    """

    def __init__(self, **environ: str) -> None:
        """Take more settings, by the names of their variables."""
        self.valkey = Valkey("--appendonly", "yes")
        self.claude = ClaudeProcess()
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-fleet-")
        self._settings = _TIMES | environ
        self.workers: list[WorkerProcess] = []

    @property
    def folder(self) -> Path:
        """Return the folder of everything that a fleet writes."""
        return Path(self._folder.name)

    @property
    def data_dir(self) -> Path:
        """Return the data folder of the embedded memory."""
        return self.folder / "data"

    @cached_property
    def variables(self) -> dict[str, str]:
        """Return the settings that workers and producers have in common."""
        return {
            "AFTERWORD_REDIS_URL": self.valkey.url,
            "AFTERWORD_DATA_DIR": str(self.data_dir),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": self.claude.url,
        } | self._settings

    @cached_property
    def settings(self) -> Settings:
        """Return the same as a value."""
        return Settings.load(self.variables)

    @cached_property
    def app(self) -> Celery:
        """Return an app that speaks to the workers, for remote control."""
        return make_app(self.settings)

    def launch(
        self, kind: Kind, *arguments: str, app: str | None = REAL_APP, **environ: str
    ) -> WorkerProcess:
        """Start a worker, which says all it can, and do not wait; by our command without `app`."""
        node = f"{kind}{len(self.workers)}@localhost"
        if app is None:
            argv = [*COMMAND, "worker", kind, *arguments]
        else:
            options = ["-Q", _QUEUE_OF[kind], "-n", node, "--loglevel", "DEBUG"]
            argv = worker_command(app, *options, *arguments)
        env = os.environ | self.variables | environ
        worker = WorkerProcess(kind, node, argv, env, self.folder)
        self.workers.append(worker)
        return worker

    def start(
        self, *kinds: Kind, app: str | None = REAL_APP, **environ: str
    ) -> list[WorkerProcess]:
        """Start workers at the same time and wait until all are ready."""
        launched = [self.launch(kind, app=app, **environ) for kind in kinds]
        return [worker.ready() for worker in launched]

    def stop(self) -> None:
        """Stop all workers as an operator would, at the same time."""
        running = [worker for worker in self.workers if worker.runs]
        for worker in running:
            worker.send(signal.SIGTERM)
        for worker in running:
            assert worker.process.wait(_PATIENCE_S) == 0, worker.log

    def afterword(
        self, *arguments: str, said: str | None = None, code: int = 0, **environ: str
    ) -> Ran:
        """Run the command `afterword`; what it prints with `--json` must fit its schema."""
        ran = self.run(*COMMAND, *arguments, said=said, code=code, **environ)
        if ran.stdout and not ran.returncode:
            assert_fits_schema(arguments, ran.stdout)
        return ran

    def inspect_active(self, worker: WorkerProcess) -> str:
        """Return what Celery's command prints, as JSON, of the tasks that a worker runs."""
        # It waits for the answer of one node, and not for a second for those of all.
        whose = ("--destination", worker.node, "--timeout", str(_PATIENCE_S))
        celery = (sys.executable, "-m", "celery", "-A", REAL_APP)
        return self.run(*celery, "inspect", *whose, "--json", "active").stdout

    def python(self, script: str, *arguments: str) -> str:
        """Run a script in a process of its own and return what it printed, quietly."""
        argv = (sys.executable, "-W", "error", "-c", script, *arguments)
        running = self.popen(*argv)
        out, err = running.communicate(timeout=_PATIENCE_S)
        ran = _checked(Ran(argv, running.returncode, out, err), 0)
        assert not ran.stderr, ran.stderr
        return ran.stdout

    def run(self, *argv: str, said: str | None = None, code: int = 0, **environ: str) -> Ran:
        """Run a Python program that reads `said`; fail unless it exits with `code`."""
        return _checked(self._run(argv, environ, said), code)

    def exit_code(self, *arguments: str) -> int:
        """Run the command `afterword` and return its exit code."""
        return self._run((*COMMAND, *arguments), {}, None).returncode

    def _run(self, argv: Sequence[str], environ: dict[str, str], said: str | None) -> Ran:
        env = self._environment(environ)
        return shared_fork_server().run(argv, env, said, _PATIENCE_S)

    def popen(self, *argv: str, **environ: str) -> subprocess.Popen[str]:
        """Start a process that knows the settings; an empty one is taken away."""
        return subprocess.Popen(
            argv,
            env=self._environment(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _environment(self, environ: dict[str, str]) -> dict[str, str]:
        env = os.environ | self.variables | environ
        return {name: value for name, value in env.items() if value}

    def ask(self, command: str, **arguments: Any) -> list[Any]:
        """Return what each worker answers to a command of Celery's remote control."""
        answers = self.app.control.broadcast(
            command,
            arguments=arguments,
            reply=True,
            timeout=_PATIENCE_S,
            limit=sum(worker.runs for worker in self.workers),
        )
        return [answer for one in answers or () for answer in one.values()]

    def assert_silent(self) -> None:
        """Fail if a worker logged content."""
        for worker in self.workers:
            lines = worker.log_file.read_text(errors="replace").splitlines()
            assert not [line for line in lines if CANARY in line.lower()], "content in a log"

    def __enter__(self) -> Self:
        try:
            self.valkey.start()
            self.claude.__enter__()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()
        self.claude.__exit__()
        self.valkey.stop()
        try:
            self.assert_silent()
        finally:
            self._folder.cleanup()


def _checked(ran: Ran, code: int) -> Ran:
    assert ran.returncode == code, f"exit code {ran.returncode}: {ran.stdout}{ran.stderr}"
    return ran
