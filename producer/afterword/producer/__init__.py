"""The Python API: submit chat requests, follow their replies, and operate what failed.

Everything that a program needs is imported from here, except for the fakes for its tests, which
are in `afterword.producer.testing`.
"""

from __future__ import annotations

from afterword.producer.admin.async_admin import AsyncOperator, DiscardResult
from afterword.producer.admin.async_steering import AsyncSteering
from afterword.producer.admin.cost_estimate import Estimate
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.history import ImportCounts
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.admin.sync_admin import Operator
from afterword.producer.admin.sync_steering import Steering
from afterword.producer.admin.tenants import AsyncTenants, Tenants
from afterword.producer.client.async_client import AsyncJob, AsyncProducer
from afterword.producer.client.async_memories import AsyncUserMemories
from afterword.producer.client.sync_client import Job, Producer
from afterword.producer.client.sync_memories import UserMemories
from afterword.shared.contracts import (
    ChatRequest,
    Event,
    EventType,
    Extraction,
    JobStatus,
    MemoryStatus,
    MemoryUsed,
    Priority,
    Reply,
    StopDetails,
    Timings,
    Usage,
    WhenBusy,
)
from afterword.shared.errors import (
    AfterwordError,
    Blocked,
    BudgetSpent,
    ConversationBusy,
    Fault,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    KeyReused,
    LeaseLost,
    LedgerUnavailable,
    MemoriesUnavailable,
    MemoryNotFound,
    Misconfigured,
    NewerRecord,
    NoReplyInTime,
    NotAccepted,
    NotReplicated,
    QueueFull,
)
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger.budget_rows import BudgetPage, BudgetRow
from afterword.shared.ledger.dead_letter_records import (
    AuditEntry,
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    ReplayOutcome,
    ReplayPace,
    ReplayRun,
    ReplayState,
)
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder, TenantLimits
from afterword.shared.ledger.records import Account, ErasureState, Inconsistency, WorkerSeen
from afterword.shared.ledger.story_records import (
    JobListed,
    JobStory,
    MemoryGiven,
    MemoryLeftOut,
    StepKind,
    StoryStep,
    UserJobs,
)
from afterword.shared.ledger.tenants import TenantLoad, TenantLoads
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.memory_contracts import (
    ExportedConversation,
    ExportedJob,
    Memory,
    MemoryPage,
    ReplyGiven,
    UserExport,
)
from afterword.shared.settings import Settings
from afterword.shared.usage_contracts import UsageSum

__all__ = [
    "Account",
    "AfterwordError",
    "AsyncJob",
    "AsyncOperator",
    "AsyncProducer",
    "AsyncSteering",
    "AsyncTenants",
    "AsyncUserMemories",
    "AuditEntry",
    "Blocked",
    "BudgetPage",
    "BudgetRow",
    "BudgetSpent",
    "ChatRequest",
    "ConversationBusy",
    "DeadLetter",
    "DeadLetterFilter",
    "DeadLetterKind",
    "DiscardResult",
    "ErasureReceipt",
    "ErasureState",
    "Estimate",
    "Event",
    "EventType",
    "ExportedConversation",
    "ExportedJob",
    "Extraction",
    "Fault",
    "HistoryTurn",
    "ImportCounts",
    "Inconsistency",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobListed",
    "JobNotFound",
    "JobState",
    "JobStatus",
    "JobStory",
    "KeyReused",
    "LeaseLost",
    "LedgerUnavailable",
    "MemoriesUnavailable",
    "Memory",
    "MemoryGiven",
    "MemoryLeftOut",
    "MemoryNotFound",
    "MemoryPage",
    "MemoryStatus",
    "MemoryUsed",
    "Misconfigured",
    "NewerRecord",
    "NoReplyInTime",
    "NotAccepted",
    "NotReplicated",
    "Operator",
    "OrderKind",
    "Priority",
    "Producer",
    "QueueFull",
    "ReplayOutcome",
    "ReplayPace",
    "ReplayPlan",
    "ReplayRun",
    "ReplayState",
    "Reply",
    "ReplyGiven",
    "Settings",
    "Steering",
    "SteeringOrder",
    "StepKind",
    "StopDetails",
    "StoryStep",
    "TenantLimits",
    "TenantLoad",
    "TenantLoads",
    "Tenants",
    "Timings",
    "TurnState",
    "Usage",
    "UsageSum",
    "UserExport",
    "UserJobs",
    "UserMemories",
    "WhenBusy",
    "WorkerSeen",
]
