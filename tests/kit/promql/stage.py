"""A fleet on a stage: a real ledger and a real worker's counters, scraped while time is made up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Histogram, generate_latest

from afterword.producer.admin.fleet_metrics import FleetCollector, FleetState, state_of
from afterword.shared import events
from afterword.shared.contracts import MemoryStatus
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import TaskHealth
from afterword.shared.lifecycle import TurnState
from afterword.shared.metrics_server import new_registry
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.observer import emit
from afterword.workers.metrics import counting, describe_worker
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.promql.recording import Recording

#: Seconds between two scrapes.
STEP_S = 60
LATE_S = 60.0
HOUR_MS = 3_600_000

#: What a fault does to a stage before it yields; what follows ends it.
Story = Callable[["Stage"], AsyncIterator[None]]


class Stage:
    """Scrapes what is there at each step; `each` is what happens between two of them."""

    def __init__(self, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.ledger = ledger
        self.inspector = inspector
        self.recording = Recording()
        self.times: list[float] = []
        self.each = self.all_is_well
        self._fleet = ""
        self._registry = CollectorRegistry()
        self._lag: Histogram = describe_worker(self._registry, REPLIES)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Count the events of this process while the context is open."""
        with counting(self._registry, {"word": (1.0, 1.0)}):
            yield

    async def look(
        self,
        *,
        ledger: Ledger | None = None,
        workers: bool = True,
        tasks: tuple[TaskHealth, ...] = (),
    ) -> None:
        """Look at the ledger as `afterword metrics` does; it is what is scraped from then on."""
        ledger = ledger or self.ledger
        self.inspector.redis.delete(self.inspector.keys.workers)
        for queue in (REPLIES, MEMORIES) if workers else ():
            await ledger.maintenance.record_heartbeat(queue, "host:1", tasks)
            # However long this test takes, they are not gone.
            self.inspector.redis.zincrby(self.inspector.keys.workers, HOUR_MS, f"{queue} host:1")
        self._fleet = _served(await state_of(ledger, LATE_S))

    def lose_the_ledger(self) -> None:
        """Serve what an exporter does that cannot read the ledger."""
        self._fleet = _served(None)

    def lose_the_exporter(self) -> None:
        """Serve nothing of the fleet."""
        self._fleet = ""

    def pass_minutes(self, minutes: float) -> None:
        """Let time pass, with a scrape at each step."""
        for _ in range(round(minutes * 60 / STEP_S)):
            self.each()
            at = (self.times[-1] if self.times else -STEP_S) + STEP_S
            self.recording.scrape(at, "worker:9464", generate_latest(self._registry).decode())
            self.recording.scrape(at, "metrics:9464", self._fleet)
            self.times.append(float(at))

    def all_is_well(self) -> None:
        """Answer and remember one message as fast as ever."""
        self.answer()
        self.remember()
        self._lag.observe(0.001)

    def answer(self, *, queued_s: float = 0.1, memory: MemoryStatus = "fresh") -> None:
        """Let a worker answer one job."""
        emit(events.JobClaimed, queued_s=queued_s, snoozes=0)
        emit(events.RecallFinished, status=memory, kept=1, dropped=0, duration_s=0.1)
        emit(events.ReplyPublished, total_s=queued_s + 1, not_remembered="")

    def remember(self, *, age_s: float = 5.0) -> None:
        """Let a worker store one turn."""
        emit(events.StoreAnswered, outcome="stored", duration_s=0.5)
        emit(
            events.TurnSettled,
            outcome=TurnState.STORED, code="", turns=1, memories=1, age_s=age_s,
        )  # fmt: skip

    def lag(self) -> None:
        """Let the event loop be late."""
        self._lag.observe(0.5)


def _served(state: FleetState | None) -> str:
    collector = FleetCollector()
    collector.state = state
    return generate_latest(new_registry("a test", collector)).decode()
