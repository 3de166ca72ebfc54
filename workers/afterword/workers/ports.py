"""The ports of the workers: a model that answers, and memories that are searched and stored.

`afterword.workers.adapters` implements them. The tests run one contract suite per port, against the
real adapters and against the fakes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

from afterword.shared.contracts import StopDetails, Usage
from afterword.shared.errors import BadAnswer, Rejected, Unavailable
from afterword.shared.ledger.quota_records import QuotaLevel


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the model; `system` stays the same in a conversation, `messages` grows.

    `user_tag` is an opaque name for the end user, never their id. `turn_id` is the turn that it
    extracts from, if its answer may come hours later.
    """

    system: tuple[str, ...]
    messages: tuple[ChatMessage, ...]
    model: str
    max_tokens: int
    user_tag: str
    turn_id: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer: the model ended it and said why.

    `pause_s` is how many seconds not to call the provider now, because it said with the answer
    that our rate limit is used up. `dropped` names fields that could not be read.
    """

    text: str
    stop_reason: str
    model: str
    usage: Usage
    stop_details: StopDetails | None = None
    request_id: str | None = None
    pause_s: float = 0.0
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The model that answers under a name; `warning` says why it should not be used any longer."""

    found: str
    warning: str = ""


#: Called with the tokens that a call has used, as far as the provider has told them.
OnUsage = Callable[[Usage], None]

#: Called with what the provider told of its rate limit, with an answer or a refusal.
OnQuota = Callable[[Sequence[QuotaLevel]], None]


class Model(Protocol):
    """Answers prompts."""

    def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer: its text in pieces, then the `Answer`, then nothing.

        Only a complete answer yields an `Answer`, with `text` the pieces joined. Everything
        else raises a `ProviderError`. Closing the generator ends the call. `on_usage` is called
        with the tokens of the call whenever the provider tells them, each time with all so far,
        and `on_quota` when it tells what is left of its rate limit.
        """
        ...

    async def check(self, model: str) -> ModelCheck:
        """Return what answers for that model; else raise a `ProviderError`.

        It costs nothing, or an answer of one token where the provider has no call that is free.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class BatchGone(Unavailable):
    """The provider has no such message batch: it was deleted, or is too old."""

    def __init__(self) -> None:
        super().__init__("batch_gone")


class MessageBatchApi(Protocol):
    """Answers many prompts together, within a day, and cheaper; errors are `ProviderError`s."""

    async def create(self, requests: Sequence[tuple[str, Prompt]]) -> str:
        """Send prompts, each under a name; return the provider's id of the batch.

        Unless the provider refused it, an error does not tell whether the batch exists.
        """
        ...

    async def has_ended(self, batch_id: str) -> bool:
        """Return whether there is a result for every request of a batch; raise `BatchGone`."""
        ...

    async def results(self, batch_id: str) -> Mapping[str, Answer | None]:
        """Return what each request of a batch that has ended was answered, None if it failed.

        An answer that cannot be read has no text and no reason to stop, but its tokens.
        """
        ...

    async def find(self, requests: int, within_s: float) -> Sequence[str]:
        """Return the batches of so many requests that were created within so many seconds."""
        ...

    async def discard(self, batch_id: str) -> None:
        """Delete a batch that has ended at the provider, with all that was said in it.

        Nothing is done if it is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class RecalledMemory:
    """One memory as mem0 returned it.

    `owner` is the one that mem0 says it has, or who was asked for if it says none. `score` is None
    if mem0 gives none. `times_said` counts the memories with this text, of which it is the newest.
    `stored_by` names the worker that stored it, and `extraction_model` the model that extracted it
    from its turn; both are None for memories that older workers or other programs have stored.
    `copied_from` is the id that it had in the backend from which it was migrated.
    """

    id: str
    owner: str
    text: str
    score: float | None
    created_at: datetime | None
    turn_id: str | None = None
    times_said: int = 1
    updated_at: datetime | None = None
    conversation_id: str | None = None
    stored_by: str | None = None
    extraction_model: str | None = None
    copied_from: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found, best first; `malformed` rows could not be read and were dropped."""

    memories: tuple[RecalledMemory, ...]
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class MemoryPage:
    """Some of an owner's memories; `next` continues after them, and is None after the last.

    `malformed` rows could not be read and were dropped.
    """

    memories: tuple[RecalledMemory, ...]
    next: str | None = None
    malformed: int = 0


@dataclass(frozen=True, slots=True)
class OwnerPage:
    """Some of the owners that a backend has memories of; `next` continues after them."""

    owners: tuple[str, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """The memories for one reply; `memories` is None if mem0 could not be searched.

    `found` is how many rows mem0 returned, those that were dropped among them. `lost` were dropped
    because they could not be read, or were another user's. `code` says why mem0 could not be
    searched. `left_out` are the best rows that are not among the memories, with why.
    """

    memories: tuple[RecalledMemory, ...] | None
    enabled: bool = True
    found: int = 0
    lost: int = 0
    code: str = ""
    left_out: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """One user message and its reply."""

    user_text: str
    reply_text: str


class Meter(Protocol):
    """Counts the tokens of calls of models, one after the other."""

    def begin(self, model: str) -> None:
        """Count for a new call of a model."""

    def tell(self, usage: Usage) -> None:
        """Note what the call has used so far, all of it."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message and its reply, on its way into memory.

    `followed_by` is what was said next, to be stored with it in one add, under its id and time.
    `attempt` names the one that adds it: what two adds left behind is told apart by it. `facts`
    is what an earlier attempt extracted and had noted by `note_facts`, for a memory that does so;
    `meter` counts what that takes. `timezone` is the user's, if known: "yesterday" means the day
    before theirs. `stored_by` names the worker that stores it. `alone` says that a message batch
    could not extract its facts.
    """

    id: str
    user_text: str
    reply_text: str
    at: datetime
    conversation_id: str | None = None
    attempt: str = ""
    facts: str = ""
    note_facts: Callable[[str], Awaitable[None]] | None = None
    meter: Meter | None = None
    followed_by: tuple[Exchange, ...] = ()
    timezone: str | None = None
    stored_by: str = ""
    alone: bool = False

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """Return all that is to be stored, oldest first."""
        return (Exchange(self.user_text, self.reply_text), *self.followed_by)


class EventFailed(BadAnswer):
    """mem0 could not process an add that it had accepted: because of the turn, or of itself."""

    def __init__(self) -> None:
        super().__init__("event_failed")


class EventGone(Unavailable):
    """mem0 no longer knows an add that it accepted. What became of it has to be looked up."""

    def __init__(self) -> None:
        super().__init__("event_gone")


class BadCursor(Rejected):
    """A page was asked for after something that no page of this backend has ended with."""

    def __init__(self) -> None:
        super().__init__("bad_cursor")


class AddOutcome(StrEnum):
    """What became of an add."""

    STORED = "stored"
    NOTHING = "nothing"
    PENDING = "pending"


@dataclass(frozen=True, slots=True)
class AddResult:
    """The result of an add: `event_id` only while `PENDING`.

    `STORED` without `memory_ids`: what was stored has to be looked up. `code` says why it is
    `NOTHING`: `no_fact` or `known_facts`, or why the message itself is not worth remembering.
    """

    outcome: AddOutcome
    memory_ids: tuple[str, ...] = field(default=())
    event_id: str | None = None
    code: str = ""


#: Nothing was stored, since no fact was found in a turn, or since all of them were known.
NO_FACT = AddResult(AddOutcome.NOTHING, code="no_fact")
KNOWN_FACTS = AddResult(AddOutcome.NOTHING, code="known_facts")


class Memories(Protocol):
    """Stores memories per owner; every error is one of `afterword.shared.errors.ProviderError`.

    `owner` is the memory key of one (tenant, user), see `afterword.shared.names.memory_key`.
    """

    @property
    def takes_batches(self) -> bool:
        """True if one add can take several exchanges, and should."""
        ...

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Search for at most `limit` memories of `owner`; no row of mem0 makes it raise."""
        ...

    async def add(self, owner: str, turn: Turn) -> AddResult:
        """Store one turn, stamped with its id and its own time.

        An error with `unknown_outcome` means that it may be stored all the same. Adding a turn
        twice may store it twice: look for it first.
        """
        ...

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn."""
        ...

    async def follow(self, owner: str, event_id: str) -> AddResult:
        """Return the result of an add that returned `PENDING`; raise `EventGone` if it is unknown.

        An error whose fault is the request, without `unknown_outcome`, means that the event failed.
        In both cases, search for the turn before adding it again.
        """
        ...

    async def find_copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same ids as `find`, those of each attempt that added the turn by itself."""
        ...

    async def list_page(self, owner: str, limit: int, after: str | None = None) -> MemoryPage:
        """Return at most `limit` memories of this owner, those that were stored last first.

        `after` is the `next` of the page before; raises `BadCursor` for anything else. A memory
        that is stored or removed meanwhile may be missing, or come twice.
        """
        ...

    async def get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        """Return one memory, None unless there is one with this id and it is this owner's."""
        ...

    async def repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of the memories of this owner that say this text.

        Case, width and spacing are no difference: a reply is given one of them. A backend that can
        only search returns those that it finds.
        """
        ...

    async def edit(self, owner: str, memory_id: str, text: str) -> bool:
        """Replace the text of one memory, and what it is found by; all else stays.

        Returns false unless there is one with this id and it is this owner's. An error with
        `unknown_outcome` means that it may be replaced all the same; to do it again is safe.
        """
        ...

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        """Remove single memories of this owner; no error for one that is gone."""
        ...

    async def forget(self, owner: str) -> None:
        """Remove everything of this owner; no error if there is nothing."""
        ...

    async def aclose(self) -> None:
        """Close connections, files and threads."""
        ...


class MigratableMemories(Memories, Protocol):
    """Memories that can be copied from one backend to another."""

    async def list_owners(self, limit: int, after: str | None = None) -> OwnerPage:
        """Return about `limit` owners of memories, in an order that stays.

        `after` is the `next` of the page before; raises `BadCursor` for anything else. Owners whose
        first memory is stored meanwhile may be missing.
        """
        ...

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        """Store a memory of another backend as it is: nothing is extracted from it.

        Its time, turn, conversation, worker and model are kept, and its id as `copied_from`.
        Returns the id it has here; none if this backend holds the same text of this owner and
        stores none twice. An error with `unknown_outcome` means that it may be stored.
        """
        ...
