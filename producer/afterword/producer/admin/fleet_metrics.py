"""What the ledger says of the whole fleet, as metrics for Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from afterword.producer.admin.fleet_status import look_at
from afterword.shared.clock import utc_now
from afterword.shared.ledger.account import total
from afterword.shared.ledger.dead_letter_records import ReplayOutcome, ReplayRun, ReplayState
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.ledger.records import Account, Gate, GateState
from afterword.shared.ledger.tenants import TenantLoads, whole

if TYPE_CHECKING:
    from prometheus_client.core import Metric


#: How many of the newest replay runs are looked at.
RUNS = 20

#: A value for each tuple of label values.
Rows: TypeAlias = Mapping[Any, float]


@dataclass(frozen=True, slots=True)
class FleetState:
    """What one look at the ledger found."""

    status: dict[str, Any]
    """What `afterword status --json` prints."""

    account: Account
    """The sum of all tenants' accounts."""

    late_s: float
    """From which age of their oldest waiting turn on a user counts as late, in seconds."""

    problems: Sequence[str]
    """What makes Redis unfit: nothing is accepted while there is a problem."""

    tenants: TenantLoads
    """How tenants share the response workers: counts of all."""

    runs: Sequence[ReplayRun]
    """The newest replay runs."""


async def state_of(ledger: Ledger, late_s: float) -> FleetState:
    """Look at a fleet and at its tenants; the counts are read once."""
    found = await look_at(ledger, late_s)
    tenants = whole(await ledger.tenants.loads(counts=found.counts))
    runs = await ledger.replay_runs.newest(RUNS)
    return FleetState(found.status, total(found.accounts), late_s, found.problems, tenants, runs)


class FleetCollector:
    """Gives Prometheus the last state that was found, or that there is none.

    Attributes:
        state: what the last look found; None while the ledger cannot be read, so that no figure
            outlives what it says.

    """

    def __init__(self) -> None:
        self.state: FleetState | None = None

    def describe(self) -> Iterator[Metric]:
        """Return nothing: a registry asks this in place of a first look."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield _one(
            "ledger_up", "1 if the last look at the ledger succeeded.", self.state is not None
        )
        if self.state is not None:
            yield from _queues(self.state.status)
            yield from _workers(self.state.status)
            yield from _counts(self.state.status)
            yield from _gates(self.state.status["gates"])
            yield from _orders(self.state.status["orders"])
            yield from _tenants(self.state.tenants)
            yield from _replays(self.state.runs)
            yield from _memory(self.state)


def _queues(status: dict[str, Any]) -> Iterator[Metric]:
    for figure, text in {
        "ready": "Jobs or lanes that no worker has taken yet.",
        "delayed": "Jobs or lanes that wait for a later time.",
        "running": "Jobs or lanes that a worker holds.",
    }.items():
        rows = {(queue,): row[figure] for queue, row in status["queues"].items()}
        yield _gauge(f"queue_{figure}", text, ("queue",), rows)
    oldest = {(queue,): row["oldest_ready_s"] for queue, row in status["queues"].items()}
    text = "How long the oldest of those that no worker has taken has waited."
    yield _gauge("queue_oldest_ready_seconds", text, ("queue",), oldest)


def _workers(status: dict[str, Any]) -> Iterator[Metric]:
    seen: dict[tuple[str, ...], float] = {(queue, ""): 0.0 for queue in status["queues"]}
    troubled = 0
    for worker in status["workers"]:
        for queue in worker["queue"].split("+"):
            seen.pop((queue, ""), None)
            key = (queue, worker["version"])
            seen[key] = seen.get(key, 0) + 1
        troubled += sum(task["state"] != "ok" for task in worker["periodic_tasks"])
    text = "Workers heard of in the last seconds, by the queue they take hints from."
    yield _gauge("workers", text, ("queue", "version"), seen)
    text = "Periodic tasks of workers that fail or are late."
    yield _one("periodic_tasks_troubled", text, troubled)


def _counts(status: dict[str, Any]) -> Iterator[Metric]:
    for what, text in {
        "jobs": "Jobs in the ledger, by state.",
        "turns": "Turns in the ledger, by what became of them.",
    }.items():
        rows = {(state,): count for state, count in status[what].items()}
        yield _gauge(what, text, ("state",), rows)
    rows = {(kind,): count for kind, count in status["dead_letters"].items()}
    yield _gauge(
        "dead_letters", "Failed jobs, and turns that could not be stored.", ("kind",), rows
    )
    held = {(kind,): status["held"][kind] for kind in ("jobs", "lanes")}
    yield _gauge("held", "Jobs and lanes held for workers of a newer version.", ("kind",), held)
    text = "Messages in the queues that were no hints and were dropped, by reason."
    dropped = {(reason,): count for reason, count in status["quarantined"].items()}
    yield _counter("quarantined", text, ("reason",), dropped)
    text = "Replies without what memory knows, because it could not be searched in time."
    yield _counter("degraded_replies", text, (), {(): status["degraded_replies"]})
    text = "Turns that mem0 found no fact in, though they do more than ask or greet."
    yield _counter("turns_without_facts", text, (), {(): status["turns_without_facts"]})


def _gates(gates: Sequence[Gate]) -> Iterator[Metric]:
    shut = sum(gate.state is GateState.SHUT for gate in gates)
    yield _one("gates_shut", "Gates that stop all calls to a provider.", shut)
    rows = {(gate.name, gate.state, gate.code, gate.fault): 1.0 for gate in gates}
    text = "1 for each gate that is not open, with why and by whose fault; absent once it is open."
    yield _gauge("gate", text, ("gate", "state", "code", "fault"), rows)


def _orders(orders: Sequence[SteeringOrder]) -> Iterator[Metric]:
    rows: Counter[tuple[str, str]] = Counter((str(one.kind), one.scope) for one in orders)
    text = "Orders of operators that are in force; absent for kinds of which none is."
    yield _gauge("orders", text, ("order", "scope"), rows)
    parked: Counter[tuple[str]] = Counter()
    for one in orders:
        parked[(str(one.kind),)] += one.waiting
    text = "Jobs, or users with turns, that wait for the end of an operator's order."
    yield _gauge("orders_waiting", text, ("order",), parked)
    now, ages = utc_now(), dict[tuple[str], float]()
    for one in orders:
        if one.can_be_forgotten:
            age = max(0.0, (now - one.since).total_seconds())
            ages[(str(one.kind),)] = max(age, ages.get((str(one.kind),), 0.0))
    text = "Age of the oldest order that pauses or blocks until it is lifted; absent without one."
    yield _gauge("order_open_ended_seconds", text, ("order",), ages)


def _tenants(loads: TenantLoads) -> Iterator[Metric]:
    yield _one("tenants_waiting", "Tenants with queued jobs.", loads.waiting)
    text = "Tenants that run all they may while more of their jobs wait."
    yield _one("tenants_at_cap", text, loads.at_cap)
    text = "Queued jobs of the tenant that has most of them."
    yield _one("tenant_waiting_jobs_max", text, loads.most_waiting)
    text = "How long the job has waited that waits longest, of all tenants, for a worker or a cap."
    yield _one("tenant_wait_seconds_max", text, loads.longest_wait_s)
    text = "Which part of the attempts of the last hour was the one tenant's that had most, 0 to 1."
    yield _one("tenant_share_max", text, loads.largest_share)


def _replays(runs: Sequence[ReplayRun]) -> Iterator[Metric]:
    states = dict.fromkeys(((str(state),) for state in ReplayState if state != ReplayState.DRY), 0)
    letters = dict.fromkeys(((word,) for word in (*map(str, ReplayOutcome), "left")), 0)
    for run in runs:
        states[(str(run.state),)] += 1
        letters[("left",)] += run.left
        for outcome, count in run.outcomes.items():
            letters[(str(outcome),)] += count
    text = f"Replay runs by state, of the newest {RUNS}."
    yield _gauge("replay_runs", text, ("state",), states)
    text = "Dead letters of these runs by what became of them: `left` were not replayed yet."
    yield _gauge("replay_letters", text, ("outcome",), letters)


def _memory(state: FleetState) -> Iterator[Metric]:
    account = state.account
    yield _one("users_behind", "Users with a turn that waits to be stored.", account.users_behind)
    text = "Users whose oldest waiting turn is older than the limit."
    yield _one("users_late", text, account.users_late)
    yield _one("users_late_limit_seconds", "The limit above which a user is late.", state.late_s)
    yield _one("oldest_turn_seconds", "Age of the oldest turn that waits.", account.oldest_s)
    batches = state.status["message_batches"]
    text = "Turns that wait for a message batch: they are late because of the setting."
    yield _one("message_batch_turns_waiting", text, batches["turns"])
    text = "Age of the oldest message batch under way."
    yield _one("message_batch_oldest_seconds", text, batches["oldest_s"])
    text = "Message batches that are done with, and could not be deleted at the provider."
    yield _one("message_batches_undeleted", text, batches["undeleted"])
    text = "Secrets found in turns that are stored now, by kind."
    secrets = {(kind,): float(count) for kind, count in account.secrets.items()}
    yield _counter("secrets", text, ("kind",), secrets)
    text = "Problems that make Redis unfit: while there are any, nothing is accepted."
    yield _one("ledger_problems", text, len(state.problems))


def _one(name: str, text: str, value: float) -> Metric:
    return _gauge(name, text, (), {(): value})


def _gauge(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(f"afterword_{name}", text, labels=labels)
    for values, value in rows.items():
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: tuple[str, ...], rows: Rows) -> Metric:
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(f"afterword_{name}", text, labels=labels)
    for values, value in rows.items():
        family.add_metric(values, value)
    return family
