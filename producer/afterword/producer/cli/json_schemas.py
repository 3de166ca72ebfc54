"""What each command prints with `--json`, as types and as JSON Schema."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeAlias

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from afterword.producer.admin.access import NewAccessKey
from afterword.producer.admin.async_admin import DiscardResult
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.explanation import Explanation
from afterword.producer.admin.history import ImportCounts
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.cli.checks.finding import Finding
from afterword.producer.cli.drain import Drained
from afterword.producer.cli.gate import GatesChanged
from afterword.producer.cli.migrate import MigrationReport
from afterword.producer.cli.steering import OrdersChanged
from afterword.shared.contracts import Event, JobStatus, Reply, Timings
from afterword.shared.ledger.access_keys import AccessKey
from afterword.shared.ledger.budget_rows import BudgetPage
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    ReplayOutcome,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.ledger.records import (
    Account,
    Gate,
    Inconsistency,
    QuarantineNote,
    TaskHealth,
)
from afterword.shared.ledger.story_records import JobStory, UserJobs
from afterword.shared.ledger.tenants import TenantLoads
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.memory_contracts import Memory
from afterword.shared.usage_contracts import UsageSum

Schema: TypeAlias = dict[str, Any]


class JobId(BaseModel):
    """A job that was accepted."""

    job_id: str


class JobDetails(JobStatus):
    """A job, and for operators what it waits for."""

    metadata: dict[str, Any] | None = Field(default=None, exclude=True)
    lane: str | None
    priority: str | None
    waits_for: str | None
    waits_until: datetime | None
    worker: str | None
    timings_ms: Timings | None
    replay_of: str | None
    replayed_as: str | None


class QueueCounts(BaseModel):
    """How many jobs or lanes of a queue are where."""

    ready: int
    delayed: int
    running: int
    oldest_ready_s: float


class WorkerHeard(BaseModel):
    """A worker that sent a heartbeat a moment ago, with its periodic tasks that are not well."""

    queue: str
    name: str
    version: str
    seen_s: float
    draining: bool
    memory: str
    memory_place: str
    periodic_tasks: list[TaskHealth]


class DeadLetterCounts(BaseModel):
    """How many turns could not be stored, and how many jobs failed."""

    turns: int
    jobs: int


class HeldCounts(BaseModel):
    """What is held for workers of a newer version; `newest_version` is 0 if nothing is."""

    jobs: int
    lanes: int
    newest_version: int


class MessageBatchCounts(BaseModel):
    """Message batches under way, turns that wait for them, and the age of the oldest batch.

    `undeleted` are done with, and could not be deleted at the provider.
    """

    batches: int
    turns: int
    oldest_s: float
    undeleted: int


class FleetStatus(BaseModel):
    """Queues, workers, gates, and counts of all that is in the ledger."""

    queues: dict[str, QueueCounts]
    workers: list[WorkerHeard]
    jobs: dict[JobState, int]
    turns: dict[TurnState, int]
    degraded_replies: int
    dead_letters: DeadLetterCounts
    held: HeldCounts
    gates: list[Gate]
    orders: list[SteeringOrder]
    quarantined: dict[str, int]
    newest_quarantined: QuarantineNote | None
    message_batches: MessageBatchCounts
    durability: str


class Accounts(BaseModel):
    """The accounts of tenants, and their sum."""

    total: Account
    tenants: list[Account]


class RevokedKey(BaseModel):
    """A key that is refused from now on, and whether there was one."""

    id: str
    was_there: bool


class ClearedNotes(BaseModel):
    """How many notes were deleted, or would be."""

    state: ReplayState
    notes: int


#: What a command prints with `--json`, by its name and, where it prints several things, its case.
PRINTED: dict[str, Any] = {
    "account": Accounts,
    "audit": list[AuditEntry],
    "budgets": BudgetPage,
    "dead discard": DiscardResult,
    "dead export": DeadLetter,
    "dead list": list[DeadLetter],
    "dead replay": ReplayRun,
    "dead resume": ReplayRun,
    "dead abort": ReplayRun,
    "dead runs": list[ReplayRun],
    "dead runs RUN_ID": ReplayRun,
    "dead show": DeadLetter,
    "doctor": list[Finding],
    "drain": Drained,
    "forget": ErasureReceipt | None,
    "gate list": list[Gate],
    "gate open": GatesChanged,
    "gate shut": GatesChanged,
    "import": ImportCounts,
    "job JOB_ID": JobStory,
    "job --user": UserJobs,
    "keys create": NewAccessKey,
    "keys list": list[AccessKey],
    "keys revoke": RevokedKey,
    "limits": OrdersChanged,
    "memories delete": Memory,
    "memories edit": Memory,
    "memories list": list[Memory],
    "memories search": list[Memory],
    "memories show": Memory,
    "migrate memories": MigrationReport,
    "orders": list[SteeringOrder],
    "pause": OrdersChanged,
    "quarantine clear": ClearedNotes,
    "quarantine list": list[QuarantineNote],
    "reconcile": list[Inconsistency],
    "resume": OrdersChanged,
    "status": FleetStatus,
    "status --tenants": TenantLoads,
    "status JOB_ID": JobDetails,
    "strike": OrdersChanged,
    "submit": JobId,
    "submit --stream": Event,
    "submit --wait": Reply,
    "usage": UsageSum,
}

#: What is printed in the same object besides.
_BESIDES: dict[str, dict[str, Any]] = {
    "dead replay": {"plan": ReplayPlan},
    "dead runs RUN_ID": {"outcomes_by_id": dict[str, ReplayOutcome]},
    "job JOB_ID": {"explanation": list[Explanation]},
}


def json_schema(name: str) -> Schema:
    """Return the JSON Schema of what a command prints; raises `KeyError` if it prints no JSON.

    All keys are always there. A later version may add some, and values to an enumeration.
    """
    schema = _schema_of(PRINTED[name])
    for key, kind in _BESIDES.get(name, {}).items():
        besides = _schema_of(kind)
        schema.setdefault("$defs", {}).update(besides.pop("$defs", {}))
        schema["properties"][key] = besides
        schema["required"].append(key)
    # A filter is printed as what was asked for, and nothing else.
    schema.get("$defs", {}).get("DeadLetterFilter", {}).pop("required", None)
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": f"afterword {name} --json"}
    return schema | head


class _EveryKey(GenerateJsonSchema):
    """Requires the keys that have a default, too: they are printed."""

    def field_is_required(self, *_: Any, **__: Any) -> bool:
        """Return True."""
        return True


def _schema_of(kind: Any) -> Schema:
    adapter = TypeAdapter[Any](kind)
    return adapter.json_schema(mode="serialization", schema_generator=_EveryKey)
