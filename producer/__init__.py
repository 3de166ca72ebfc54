"""Submit chat requests and get their replies: waited for, streamed, or fetched later."""

from __future__ import annotations

from producer.asynchronous import AsyncJob, AsyncProducer
from producer.synchronous import Job, Producer
from shared.contracts import (
    ChatRequest,
    Event,
    JobStatus,
    MemoryUsed,
    Reply,
    Usage,
    UsageSum,
    WhenBusy,
)
from shared.errors import (
    AfterwordError,
    ConversationBusy,
    InvalidRequest,
    JobFailed,
    JobNotFound,
    KeyReused,
    LedgerUnavailable,
    Misconfigured,
    NoReplyInTime,
    NotAccepted,
    QueueFull,
)
from shared.lifecycle import JobState, TurnState
from shared.settings import Settings

__all__ = [
    "AfterwordError",
    "AsyncJob",
    "AsyncProducer",
    "ChatRequest",
    "ConversationBusy",
    "Event",
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
    "NoReplyInTime",
    "NotAccepted",
    "Producer",
    "QueueFull",
    "Reply",
    "Settings",
    "TurnState",
    "Usage",
    "UsageSum",
    "WhenBusy",
]
