"""What a user's memories look like to whoever may see and change them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from afterword.shared.contracts import Contract
from afterword.shared.usage_contracts import UsageSum


class Memory(Contract):
    """One memory of a user, and where it comes from."""

    id: str
    """Its id in mem0; it stays the same when the text is edited."""

    text: str
    """What is remembered, as replies are given it."""

    created_at: datetime | None = None
    """When it was said, if the memory backend says so."""

    updated_at: datetime | None = None
    """When it was last stored or edited, if the memory backend says so."""

    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """How well it fits a search, by the memory backend's own measure; None if none was made."""

    times_said: int = 1
    """How often the same was said, if a search has found it; this is the newest."""

    job_id: str | None = None
    """The job whose turn it comes from: the first one, if several were stored together. None for
    what another program has stored."""

    conversation_id: str | None = None
    """The conversation of that turn, if it had one."""

    stored_by: str | None = None
    """The worker that stored it, as `host:pid`; None if it was stored before version 0.3, or by
    another program."""

    extraction_model: str | None = None
    """The model that extracted it from the turn; None where nothing is extracted, and where mem0's
    platform does that with a model of its own."""

    given_to: tuple[str, ...] | None = None
    """The jobs whose replies were given it, newest first, up to 100, for as long as the replies are
    kept; None in a list and in a search."""


class MemoryPage(Contract):
    """Some of a user's memories."""

    memories: tuple[Memory, ...]
    """The memories: those of a search best first, those of a list in the order of the backend, the
    newest first."""

    next: str | None = None
    """Continues after this page, as `after` of the next call; None if this page is the last."""

    dropped: int = 0
    """How many rows of the backend could not be read, or were another user's, and are left out."""


class ExportedJob(Contract):
    """All that the ledger keeps of one job and its turn."""

    job_id: str
    """The job."""

    record: dict[str, Any]
    """Its record, by the names of its fields: `body` is the request, `reply` the reply, `state` and
    `turn` how far both are. Times are milliseconds since 1970."""

    events: tuple[dict[str, Any], ...]
    """Its stream, while that is kept: `id` and what the entry holds."""

    idempotency: tuple[dict[str, Any], ...]
    """Its idempotency keys, while they are kept: `hash` of the key, and what is kept of it."""


class ExportedConversation(Contract):
    """What is kept of one conversation: it goes into the prompts of its next messages."""

    conversation: str
    """The SHA-256 of its id. Each turn's job names the id itself, while that job is kept."""

    turns: tuple[dict[str, Any], ...]
    """Its turns, oldest first."""


class ReplyGiven(Contract):
    """Which memories one reply was given."""

    job_id: str
    """The job of the reply."""

    at: datetime
    """When it was given."""

    memory_ids: tuple[str, ...]
    """The memories in its prompt."""


class UserExport(Contract):
    """All that is known of a user, as one document: the answer to a request for access.

    `UserMemories.export` writes it piece by piece. `UserExport.model_json_schema()` is its JSON
    Schema, and `UserExport.model_validate_json` reads it.
    """

    format: Literal["afterword-user-export"]
    """What the document is."""

    version: Literal[1]
    """Grows when a reader has to know."""

    exported_at: datetime
    """When the export began. What changes until its end may be missing."""

    tenant: str
    """The tenant."""

    user_id: str
    """The user."""

    memory: Literal["on", "off"]
    """`off`: the workers' memory is switched off, so mem0 was not asked."""

    memories: tuple[Memory, ...]
    """What mem0 keeps."""

    memories_dropped: int = 0
    """How many rows of mem0 could not be read, or were another user's, and are left out. An older
    document does not say."""

    conversations: tuple[ExportedConversation, ...]
    """What is kept of the user's conversations."""

    jobs: tuple[ExportedJob, ...]
    """The jobs: requests, replies, turns on their way to memory, dead letters."""

    replies_given: tuple[ReplyGiven, ...]
    """Which replies were given which memories."""

    imported_turns: tuple[str, ...]
    """The keys of past turns that were imported."""

    usage: UsageSum
    """The sums of the user's replies and tokens."""

    erasure: dict[str, Any] | None
    """The receipt of the user's last erasure, if there was one."""
