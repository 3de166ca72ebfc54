"""Submit chat requests and get their replies: waited for, streamed, or fetched later."""

from __future__ import annotations

from afterword.producer.admin.async_admin import AsyncOperator, DiscardResult
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.admin.plan import ReplayPlan
from afterword.producer.admin.sync_admin import Operator
from afterword.producer.client.async_client import AsyncJob, AsyncProducer
from afterword.producer.client.sync_client import Job, Producer
from afterword.shared.contracts import (
    ChatRequest,
    Event,
    JobStatus,
    MemoryUsed,
    Reply,
    Usage,
    UsageSum,
    WhenBusy,
)
from afterword.shared.errors import (
    AfterwordError,
    ConversationBusy,
    Fault,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    KeyReused,
    LedgerUnavailable,
    Misconfigured,
    NewerRecord,
    NoReplyInTime,
    NotAccepted,
    NotReplicated,
    QueueFull,
)
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
from afterword.shared.ledger.records import Account, ErasureState, Inconsistency
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings

__all__ = [
    "Account",
    "AfterwordError",
    "AsyncJob",
    "AsyncOperator",
    "AsyncProducer",
    "AuditEntry",
    "ChatRequest",
    "ConversationBusy",
    "DeadLetter",
    "DeadLetterFilter",
    "DeadLetterKind",
    "DiscardResult",
    "ErasureReceipt",
    "ErasureState",
    "Event",
    "Fault",
    "Inconsistency",
    "InvalidRequest",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobState",
    "JobStatus",
    "KeyReused",
    "LedgerUnavailable",
    "MemoryUsed",
    "Misconfigured",
    "NewerRecord",
    "NoReplyInTime",
    "NotAccepted",
    "NotReplicated",
    "Operator",
    "Producer",
    "QueueFull",
    "ReplayOutcome",
    "ReplayPace",
    "ReplayPlan",
    "ReplayRun",
    "ReplayState",
    "Reply",
    "Settings",
    "TurnState",
    "Usage",
    "UsageSum",
    "WhenBusy",
]
