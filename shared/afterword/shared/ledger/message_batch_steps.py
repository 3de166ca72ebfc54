"""The arguments of the scripts of message batches; see `steps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("message_batch/open")
class OpenMessageBatch(NamedTuple):
    """Record which turns go into a message batch."""

    batch: str
    look_ms: int
    wait_ms: int
    ids: Sequence[str]


@declares("message_batch/note")
class NoteMessageBatch(NamedTuple):
    """Note what is known of a message batch."""

    batch: str
    provider: str
    not_ours: str
    look_ms: int


@declares("message_batch/list")
class ListMessageBatches(NamedTuple):
    """List message batches."""

    limit: int


@declares("message_batch/take")
class TakeMessageBatches(NamedTuple):
    """Take the message batches that are due."""

    lease_ms: int
    limit: int


@declares("message_batch/answer")
class AnswerFromMessageBatch(NamedTuple):
    """Take a turn out of a message batch."""

    batch: str
    id: str
    facts: str
    paid: str


@declares("message_batch/close")
class CloseMessageBatch(NamedTuple):
    """Take out the turns for which a message batch has no answer."""

    batch: str
    alone: bool
    delay_ms: int
    kept: bool
    limit: int
