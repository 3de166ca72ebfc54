"""One run of a sweep: a victim, a fault at one of its steps, a rescuer, and a report."""

from __future__ import annotations

import os
import signal
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from afterword.producer import Job, Producer
from afterword.shared.contracts import ChatRequest
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from tests.kit.fault_runs.delivery_report import DeliveryReport, JobOutcome, delivery_report
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.mem0_api.filters import Json
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import KEY
from tests.kit.process_inspection import alive
from tests.kit.servers.provider_thread import ProviderThread
from tests.kit.servers.scripted_http_server import Cue
from tests.kit.servers.step_proxy import StepProxy, TrapPoint
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.forked_workers import ForkedWorkers

WorkerFault = Literal["kill", "stop", "none"]

#: A lease of this length is lost soon, and not by a machine that is merely busy.
LEASE_S = 0.8
PATIENCE_S = 40.0

#: Longer than a victim sleeps once all is settled: what it then adds is found and taken out.
REPAIR_S = 6.0

_TIMES = {
    "AFTERWORD_LEASE_S": str(LEASE_S),
    "AFTERWORD_SWEEP_S": "0.1",
    "AFTERWORD_HINT_GRACE_S": "0.4",
    "AFTERWORD_DELTA_MS": "1",
    "AFTERWORD_MAX_ATTEMPTS": "20",
    "AFTERWORD_RECALL_BUDGET_MS": "5000",
    "AFTERWORD_REPAIR_S": str(REPAIR_S),
    "AFTERWORD_COALESCE_TURNS": "8",
    "AFTERWORD_VISIBLE_S": "0.5",
}
#: While Ann's first turn is stored, her others gather: they go into one add.
MESSAGES = (
    ("ann", "I prefer Celsius, canary."),
    ("ann", "I live in Oslo, canary."),
    ("ann", "I play the cello, canary."),
    ("ann", "My dog is called Rex, canary."),
    ("bob", "I keep bees, canary."),
)
USERS = {user for user, _ in MESSAGES}


@dataclass
class SharedServers:
    """What all runs of a sweep share."""

    valkey: Valkey
    providers: ProviderThread
    workers: ForkedWorkers
    folder: Path


@contextmanager
def shared_servers(folder: Path) -> Iterator[SharedServers]:
    """Start everything that outlives a single run."""
    with Valkey() as valkey, ProviderThread() as providers, ForkedWorkers() as workers:
        yield SharedServers(valkey, providers, workers, folder)


class CrashRun:
    """Puts five turns of two users through workers, one of which meets a fault at one point."""

    def __init__(self, on: SharedServers) -> None:
        self._servers = on
        self._name = f"t-{uuid.uuid4().hex[:10]}"
        self._go_on = threading.Event()
        self._step_proxy = StepProxy()
        self._environ = {
            "AFTERWORD_REDIS_URL": on.valkey.url,
            "AFTERWORD_NAMESPACE": self._name,
            "AFTERWORD_DURABILITY": "none",
            "AFTERWORD_MEMORY": "hosted",
            "AFTERWORD_DATA_DIR": str(on.folder / self._name),
            "ANTHROPIC_API_KEY": "test-key",
            "ANTHROPIC_BASE_URL": on.providers.claude.url,
            "MEM0_API_KEY": KEY,
            "MEM0_HOST": on.providers.mem0.url,
        } | _TIMES
        self.settings = Settings.load(self._environ)
        self.victim = 0
        self._accepted: list[Job] = []
        self._workers: list[int] = []

    @property
    def steps(self) -> list[tuple[str, int]]:
        """Return the steps that the victim took."""
        return self._step_proxy.passed

    def meet(self, fault: WorkerFault, point: TrapPoint | None) -> DeliveryReport:
        """Let the fault happen at the point and return the report once all is settled.

        Without a point the first turns of both users are stored only once all have a reply.
        """
        with self._step_proxy, self._workers_end():
            if point is not None:
                self._step_proxy.trap(point, {"kill": self._kill, "stop": self._stop}[fault])
            self.victim = self._start("victim", self._through_the_turnstile())
            with Producer(self.settings) as producer:
                if point is None:
                    self._hold_adds()
                jobs = producer.submit_many(self._requests())
                accepted = self._accepted = [job for job in jobs if isinstance(job, Job)]
                if point is not None and self._comes_to(point):
                    self._start("rescuer", {})
                if point is None:
                    self._release_adds(accepted)
                self._settled(accepted)
                if fault == "stop" and self._step_proxy.sprung.is_set():
                    self._wake(accepted)
                return self._delivery_report(accepted)

    @contextmanager
    def _workers_end(self) -> Iterator[None]:
        """End the workers of this run with it: each would go on sweeping beside all later ones."""
        try:
            yield
        finally:
            for pid in self._workers:
                self._servers.workers.kill(pid)

    def _hold_adds(self) -> None:
        held = Mem0Answer(verb="add", cue=Cue.HOLD, done=True, times=len(USERS))
        self._servers.providers.do(lambda: self._servers.providers.mem0.will_answer(held))

    def _release_adds(self, jobs: Sequence[Job]) -> None:
        """Let the first turns be stored, behind which the others have gathered."""
        mem0 = self._servers.providers.mem0
        wait_until(lambda: mem0.held == len(USERS), "the first turns wait", PATIENCE_S)
        for job in jobs:
            job.wait(timeout=PATIENCE_S)
        self._servers.providers.do(mem0.release)

    def _comes_to(self, point: TrapPoint) -> bool:
        """Wait for the step; return false if all was over without it: the rarer ones vary."""
        sprung = self._step_proxy.sprung.is_set
        wait_until(lambda: sprung() or self._all_over(), f"the step {point}", PATIENCE_S)
        return sprung()

    def _all_over(self) -> bool:
        return all(map(self._is_over, self._accepted))

    def _requests(self) -> list[ChatRequest]:
        return [
            ChatRequest(user_id=f"{user}-{self._name}", message=text, conversation_id="talk")
            for user, text in MESSAGES
        ]

    def _through_the_turnstile(self) -> dict[str, str]:
        on = self._servers
        return {
            "AFTERWORD_REDIS_URL": self._step_proxy.redis(on.valkey.port),
            "ANTHROPIC_BASE_URL": self._step_proxy.http(on.providers.claude.url),
            "MEM0_HOST": self._step_proxy.http(on.providers.mem0.url),
        }

    def _start(self, name: str, environ: dict[str, str]) -> int:
        pid = self._servers.workers.start(
            self._environ | environ, self.log_of(name),
            "-Q", "replies,memories", "-n", f"{name}@{self._name}", "--loglevel", "INFO",
        )  # fmt: skip
        self._workers.append(pid)
        return pid

    def log_of(self, name: str) -> Path:
        """Return the file that a worker logs to."""
        return self._servers.folder / f"{self._name}-{name}.log"

    def _kill(self) -> bool:
        os.kill(self.victim, signal.SIGKILL)
        return False

    def _stop(self) -> bool:
        """Stop the victim; what it just asked for, or was just answered, arrives when it wakes."""
        os.kill(self.victim, signal.SIGSTOP)
        return self._go_on.wait(PATIENCE_S)

    def _wake(self, jobs: Sequence[Job]) -> None:
        """Wake the victim, and wait until it has swept again, so that it knows what it missed."""
        before = self.log_of("victim").stat().st_size
        os.kill(self.victim, signal.SIGCONT)
        self._go_on.set()
        renewals = self._step_proxy.seen("maintenance/sweep")
        wait_until(
            lambda: self._step_proxy.seen("maintenance/sweep") > renewals + 3,
            "it is awake",
            PATIENCE_S,
        )
        assert alive(self.victim), self.log_of("victim").read_text()[before:]
        self._settled(jobs)

    def _settled(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            wait_until(lambda job=job: self._is_over(job), f"{job.id} is over", PATIENCE_S)  # type: ignore[misc]

    def _is_over(self, job: Job) -> bool:
        status = job.status()
        return status.state.terminal and status.turn.settled

    def _delivery_report(self, jobs: Sequence[Job]) -> DeliveryReport:
        inspector = LedgerInspector(self.settings)
        wait_until(lambda: not inspector.open_ends(), "nothing is open any more", PATIENCE_S)
        wait_until(lambda: not inspector.repairs(), "what is in doubt was looked at", PATIENCE_S)
        outcomes = [self._outcome(job) for job in jobs]
        return delivery_report(outcomes, self._rows(), inspector.open_ends())

    def _outcome(self, job: Job) -> JobOutcome:
        status = job.status()
        lane = str(LedgerInspector(self.settings).job(job.id)["lane"])
        return JobOutcome(job.id, lane, status.state, status.turn, list(job.stream()))

    @property
    def most_at_once(self) -> int:
        """Return how many turns the largest add of this run held."""
        mem0 = self._servers.providers.mem0
        adds: list[Json] = self._servers.providers.do(
            lambda: [request.body for request in mem0.seen("add")]
        )
        own: list[list[Json]] = [
            add["messages"] for add in adds if add["user_id"].endswith(self._name)
        ]
        return max(len([one for one in messages if one["role"] == "user"]) for messages in own)

    def _rows(self) -> list[str]:
        """Return in which turn was said what mem0 holds of this run, in the order of the adds."""
        mem0 = self._servers.providers.mem0
        found = self._servers.providers.do(
            lambda: [
                (row["user_id"], row["memory"], row["id"])
                for row in mem0.rows
                if row["user_id"].endswith(self._name)
            ]
        )
        turns = {
            (memory_key("default", f"{user}-{self._name}"), text): job.id
            for (user, text), job in zip(MESSAGES, self._accepted, strict=True)
        }
        return [turns.get((owner, text), row_id) for owner, text, row_id in found]
