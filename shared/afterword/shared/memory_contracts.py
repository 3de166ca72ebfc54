"""What a user's memories look like to whoever may see and change them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from afterword.shared.contracts import Contract


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
