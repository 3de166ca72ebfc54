"""The arguments of the scripts about memories that their user sees and changes; see `steps`."""

from __future__ import annotations

from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("turn/hold")
class HoldLane(NamedTuple):
    """Hold a user's lane to change memories of theirs."""

    lane: str
    token: str
    lease_ms: int


@declares("turn/mend")
class MendTurn(NamedTuple):
    """Record that its user has changed memories of a turn."""

    lane: str
    fence: str
    id: str
    memory_ids: str
    left: bool
    retention_ms: int
    story_ms: int
    check_after_ms: int
    known_version: int


@declares("turn/due_late_copies")
class ListDueLateCopies(NamedTuple):
    """Give out mended turns that are due to be checked for what was added later."""

    limit: int
    again_ms: int
    known_version: int


@declares("turn/finish_late_copies")
class FinishLateCopies(NamedTuple):
    """Record that a mended turn has no memories but those on record."""

    id: str


@declares("memory_request/ask")
class AskAboutMemories(NamedTuple):
    """Ask a memory worker something about the memories of a user."""

    id: str
    lane: str
    version: int
    action: str
    arguments: str
    until_ms: int
    lifetime_ms: int
    max_open: int


@declares("memory_request/claim")
class ClaimMemoryRequest(NamedTuple):
    """Claim a request about memories under a new fence."""

    id: str
    token: str
    lease_ms: int
    known_version: int


@declares("memory_request/answer")
class AnswerMemoryRequest(NamedTuple):
    """Answer a request about memories."""

    id: str
    fence: str
    result: str
    lifetime_ms: int


@declares("memory_request/remind")
class RemindOfMemoryRequest(NamedTuple):
    """Hint a request about memories again, unless it is hinted or under way."""

    id: str


@declares("memory_request/withdraw")
class WithdrawMemoryRequest(NamedTuple):
    """Take a request about memories back."""

    id: str


@declares("migration/begin")
class BeginMigration(NamedTuple):
    """Begin a migration of memories, or go on with one."""

    name: str
    token: str
    lease_ms: int


@declares("migration/advance")
class AdvanceMigration(NamedTuple):
    """Record how far a migration of memories has come."""

    name: str
    token: str
    lease_ms: int
    progress: str
