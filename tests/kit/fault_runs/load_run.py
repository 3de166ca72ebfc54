"""Workers under load on a Redis that a test breaks, and a report of what was delivered."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from typing import Self

from redis.exceptions import RedisError

from afterword.producer import Job, Producer
from afterword.shared.errors import NotAccepted
from afterword.shared.settings import Settings
from tests.kit.fault_runs.crash_run import SharedServers
from tests.kit.fault_runs.delivery_report import DeliveryReport, JobOutcome, delivery_report
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.mem0_api.server import KEY
from tests.kit.process_inspection import alive
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import REAL_APP

PATIENCE_S = 30.0
USERS = 20

#: Jobs that are open at once under load.
AT_ONCE = 12

_TIMES = {
    "AFTERWORD_LEASE_S": "2",
    "AFTERWORD_SWEEP_S": "0.2",
    "AFTERWORD_HINT_GRACE_S": "1",
    "AFTERWORD_MAX_ATTEMPTS": "20",
    "AFTERWORD_COALESCE_TURNS": "1",  # so that every turn has a row in mem0
    "AFTERWORD_RECALL_BUDGET_MS": "5000",
    "AFTERWORD_REPAIR_S": "1",
    "AFTERWORD_VISIBLE_S": "0.5",
}


class LoadRun:
    """A fleet of workers for both queues; a context manager that ends them.

    `line` is the address that workers have of the Redis, if not its own.
    """

    def __init__(self, on: SharedServers, valkey: Valkey, *, line: str | None = None) -> None:
        self.valkey = valkey
        self._servers = on
        self._name = f"t-{uuid.uuid4().hex[:10]}"
        self._numbers = itertools.count()
        self._lock = threading.Lock()  # jobs of one user are accepted in the order they are in here
        self._environ = {
            "AFTERWORD_REDIS_URL": valkey.url,
            "AFTERWORD_NAMESPACE": self._name,
            "AFTERWORD_MEMORY": "hosted",
            "AFTERWORD_DATA_DIR": str(on.folder / self._name),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": on.providers.claude.url,
            "MEM0_API_KEY": KEY,
            "MEM0_HOST": on.providers.mem0.url,
        } | _TIMES
        self._line = line or valkey.url
        self.settings = Settings.load(self._environ)
        self.producer = Producer(self.settings)
        self.workers: list[int] = []
        self._started = 0
        self.accepted: list[Job] = []
        self.refused: list[NotAccepted] = []
        #: Submit by themselves; waited for before it is counted what was delivered.
        self.submitting: list[threading.Thread] = []

    @property
    def environ(self) -> dict[str, str]:
        """Return the settings as variables, for a command."""
        return self._environ

    @cached_property
    def inspector(self) -> LedgerInspector:
        """Return a look at the ledger as it is."""
        return LedgerInspector(self.settings)

    def start(self, count: int = 1, *, app: str = REAL_APP) -> None:
        """Start more workers and wait until they sweep."""
        for _ in range(count):
            name = f"w{self._started}"
            self._started += 1
            pid = self._servers.workers.start(
                self._environ | {"AFTERWORD_REDIS_URL": self._line},
                self._servers.folder / f"{self._name}-{name}.log",
                "-Q", "replies,memories", "-n", f"{name}@{self._name}", "--loglevel", "INFO",
                app=app,
            )  # fmt: skip
            self.workers.append(pid)
        seen = self.inspector.keys.workers
        wait_until(
            lambda: self.inspector.redis.zcard(seen) == len(self.workers),
            "workers sweep",
            PATIENCE_S,
        )

    def stop_oldest(self) -> None:
        """Stop the worker that was started first, as a deploy does; it ends well."""
        oldest = self.workers.pop(0)
        assert self._servers.workers.stop(oldest, 2 * PATIENCE_S) == 0, self.logs()

    def submit(self) -> Job:
        """Submit one more job, with the same key again and again until it is accepted."""
        with self._lock:
            number = next(self._numbers)
            wait_until(lambda: self._accepts(number), "a job is accepted", PATIENCE_S)
            return self.accepted[-1]

    def submit_as(self, user: str, timezone: str | None = None) -> Job:
        """Submit one more job, of a user of its own; in a time zone its record is a newer one."""
        with self._lock:
            job = self.producer.submit(
                user_id=f"{user}-{self._name}", message=f"I am {user}, canary.", timezone=timezone
            )
            self.accepted.append(job)
            return job

    def _accepts(self, number: int) -> bool:
        try:
            job = self.producer.submit(
                user_id=f"u{number % USERS}-{self._name}",
                message=f"I like number {number}, canary.",
                idempotency_key=f"k{number}",
            )
        except NotAccepted as error:
            self.refused.append(error)
            return False
        self.accepted.append(job)
        return True

    def answered_after_s(self) -> float:
        """Submit a job and return how long its reply took, from the first try on."""
        started = time.monotonic()
        self.submit().wait(PATIENCE_S)
        return time.monotonic() - started

    def settle(self) -> DeliveryReport:
        """Wait until all that was accepted has ended, check that the workers live, and report."""
        for thread in self.submitting:
            thread.join()
        wait_until(lambda: not self._open_ends(), "nothing is open any more", PATIENCE_S)
        assert all(map(alive, self.workers)), "a worker died"
        outcomes = [self._outcome(job) for job in self.accepted]
        return delivery_report(outcomes, self._rows(), self._open_ends())

    def has_room(self) -> bool:
        """Return whether few enough jobs are open for one more."""
        with suppress(RedisError):
            return int(self.inspector.redis.zcard(self.inspector.keys.open)) < AT_ONCE
        return False

    def logs(self) -> str:
        """Return what all workers said."""
        return "".join(
            file.read_text() for file in self._servers.folder.glob(f"{self._name}-*.log")
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.producer.close()
        self._servers.workers.kill_all()

    def _open_ends(self) -> set[str]:
        with suppress(RedisError):
            return self.inspector.open_ends()
        return {"unknown"}

    def _outcome(self, job: Job) -> JobOutcome:
        status = job.status()
        lane = str(self.inspector.job(job.id)["lane"])
        return JobOutcome(job.id, lane, status.state, status.turn, list(job.stream()))

    def _rows(self) -> Sequence[str]:
        mem0 = self._servers.providers.mem0
        found: list[str] = self._servers.providers.do(
            lambda: [
                row["metadata"]["turn_id"]
                for row in mem0.rows
                if row["user_id"].endswith(self._name)
            ]
        )
        return found


class SubmitLoad:
    """Submits jobs on a thread of its own for as long as it is open, and so many at least."""

    def __init__(self, run: LoadRun, least: int) -> None:
        self._run_under_load = run
        self._least = least
        self._enough = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join(2 * PATIENCE_S)
        assert not self._thread.is_alive(), "the load does not end"
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while len(self._run_under_load.accepted) < self._least or not self._enough.is_set():
                wait_until(self._run_under_load.has_room, "jobs go on", PATIENCE_S)
                self._run_under_load.submit()
        except BaseException as error:  # noqa: BLE001 raised where the load is awaited
            self._error = error
