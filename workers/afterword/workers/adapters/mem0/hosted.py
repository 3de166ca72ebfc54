"""Implements the memory port on mem0's platform."""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from afterword.shared.errors import (
    BadAnswer,
    IllegalStep,
    Misconfigured,
    ProviderError,
    Unavailable,
)
from afterword.shared.local_time import is_known_zone, local
from afterword.shared.same_text import same_text_key
from afterword.shared.settings import MemorySettings
from afterword.shared.time_limit import TimeLimit
from afterword.workers.adapters.mem0.answers import (
    AddedRow,
    Deleted,
    EntityRow,
    Event,
    MemoryRow,
    StoredRow,
    ids_by_attempt,
    memory_of,
    read_rows,
)
from afterword.workers.adapters.mem0.errors import platform_error
from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy, prepare_mem0_import
from afterword.workers.ports import (
    NO_FACT,
    AddOutcome,
    AddResult,
    BadCursor,
    EventFailed,
    EventGone,
    MemoryPage,
    MigratableMemories,
    OwnerPage,
    RecalledMemory,
    SearchResult,
    Turn,
)
from afterword.workers.rules.dates import with_dates
from afterword.workers.rules.excerpts import both_ends

if TYPE_CHECKING:
    from afterword.workers.adapters.mem0.platform_client import PlatformClient

T = TypeVar("T")

#: The time limit of one call. An add only has to be accepted within it.
CALL_S = 10.0

#: Of a longer query both ends are searched for. mem0 documents no limit.
MAX_QUERY_CHARACTERS = 2000

#: The most memories of one turn that are looked up: mem0's largest page.
MAX_ROWS_PER_TURN = 200

#: The most memories that one page can hold: mem0's largest.
MAX_PAGE = 200
_CURSOR = re.compile(r"([1-9][0-9]{0,8})x([1-9][0-9]{0,2})(?:\+([1-9][0-9]{0,2}))?")

#: mem0 queues an erasure: how often its state is polled, and for how long.
ERASE_POLL_S = 0.5
ERASE_S = 60.0


async def open_hosted(settings: MemorySettings, connections: int) -> MigratableMemories:
    """Open mem0's platform for at most `connections` calls at once, without a request.

    Use the result in this process and on this event loop only. Raises `Misconfigured` without a
    key.
    """
    if settings.mem0_api_key is None:
        raise Misconfigured("MEM0_API_KEY", "must be set to use mem0's platform")
    key = settings.mem0_api_key.get_secret_value()
    # Off the event loop: importing mem0 takes a second or more.
    return HostedMemories(await asyncio.to_thread(_connect, key, settings.mem0_host, connections))


def _connect(key: str, host: str, connections: int) -> PlatformClient:
    with tempfile.TemporaryDirectory(prefix="mem0-") as folder:  # importing mem0 writes to it
        prepare_mem0_import(Path(folder))
        make_mem0_import_lazy()
        from afterword.workers.adapters.mem0.platform_client import PlatformClient

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs URLs, which hold owners
        return PlatformClient(key, host, connections)


class HostedMemories:
    """Keeps memories on mem0's platform, which extracts facts itself, after the add has returned.

    A call takes at most `call_s` seconds. Nothing is retried.
    """

    takes_batches = True

    def __init__(self, client: PlatformClient, *, call_s: float = CALL_S) -> None:
        self._client = client
        self._call_s = call_s

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Search for at most `limit` memories that fit the query."""
        text = " ".join(both_ends(query, MAX_QUERY_CHARACTERS))
        if not text:
            return SearchResult(())  # mem0 refuses an empty query
        # No threshold: the caller decides which scores are too low.
        call = self._client.search(text, filters=_owner_filter(owner), top_k=limit, threshold=0.0)
        return await self._call(call, partial(_found, owner))

    async def add(self, owner: str, turn: Turn) -> AddResult:
        """Send what the user wrote; often returns `PENDING`.

        Never what was replied or recalled: it could come back as what the user said. mem0 takes no
        time zone, so the date on the user's day stands beside words such as "tomorrow".
        """
        call = self._client.add(
            [{"role": "user", "content": _dated(turn, each.user_text)} for each in turn.exchanges],
            user_id=_checked(owner),
            metadata=_metadata(turn),
            timestamp=int(turn.at.timestamp()),
        )
        return await self._call(call, partial(_added, None), changes=True)

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn, without pending ones."""
        return [memory_id for ids in await self.find_copies(owner, turn_id) for memory_id in ids]

    async def find_copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same ids, grouped by the attempt that added them."""
        filters = {"AND": [_owner_filter(owner), {"metadata": {"turn_id": turn_id}}]}
        return await self._call(self._page(filters), partial(_copies, owner, turn_id))

    async def list_page(self, owner: str, limit: int, after: str | None = None) -> MemoryPage:
        """Return a page of mem0's; while memories are stored, one may come on two pages."""
        place = _Place.of(after, limit)
        call = self._client.get_all(
            filters=_owner_filter(owner), page=place.number, page_size=place.size
        )
        return await self._call(call, partial(_listed, owner, place, limit))

    async def get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        """Return one memory, None unless mem0 says that it is this owner's."""
        call = self._client.get_memory(memory_id)
        return await self._call(call, partial(_owned, _checked(owner)))

    async def repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of the best that mem0 finds for a text, of those that say it."""
        found = await self.search(owner, text, MAX_PAGE)
        same = same_text_key(text)
        return [row.id for row in found.memories if same_text_key(row.text) == same]

    async def edit(self, owner: str, memory_id: str, text: str) -> bool:
        """Replace the text of one memory; mem0 embeds it anew."""
        if await self.get(owner, memory_id) is None:
            return False
        call = self._client.edit_memory(memory_id, text)
        return await self._call(call, _is_edited, changes=True)

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:  # noqa: ARG002 - the port's signature
        """Delete single memories, one call each."""
        for memory_id in memory_ids:
            await self._call(self._client.delete_memory(memory_id), Deleted.model_validate)

    async def follow(self, owner: str, event_id: str) -> AddResult:  # noqa: ARG002 - the port's signature
        """Ask once how an add ended."""
        call = self._client.get_event(event_id)
        return await self._call(call, partial(_added, event_id), changes=True)

    async def forget(self, owner: str) -> None:
        """Delete everything of this owner, wait until mem0 has done so, and look.

        mem0 may forget the event of a deletion before anybody has asked for it.
        """
        call = self._client.delete_all(user_id=_checked(owner))
        event = await self._call(call, Event.model_validate)
        if event.name is not None:
            with suppress(EventGone):
                await self._wait_until_erased(event.name)
        left = await self._call(self._page(_owner_filter(owner)), partial(_is_left, owner))
        if left:
            raise Unavailable("not_erased")

    async def list_owners(self, limit: int, after: str | None = None) -> OwnerPage:
        """Return a page of the users that mem0 has memories of."""
        place = _Place.of(after, limit)
        call = self._client.list_entities(page=place.number, page_size=place.size)
        return await self._call(call, partial(_owners, place))

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        """Store a memory word for word; mem0 stores no text of a user twice."""
        told = {"timestamp": int(memory.created_at.timestamp())} if memory.created_at else {}
        call = self._client.add(
            [{"role": "user", "content": memory.text}],
            user_id=_checked(owner),
            metadata=_copied_metadata(memory),
            infer=False,
            **told,
        )
        return await self._call(call, _copied, changes=True)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _page(self, filters: Mapping[str, Any]) -> Awaitable[Any]:
        call: Awaitable[Any] = self._client.get_all(
            filters=filters, page=1, page_size=MAX_ROWS_PER_TURN
        )
        return call

    async def _wait_until_erased(self, event_id: str) -> None:
        end = asyncio.get_running_loop().time() + ERASE_S
        while not await self._call(self._client.get_event(event_id), _has_ended):
            if asyncio.get_running_loop().time() >= end:
                raise Unavailable("too_slow")
            await asyncio.sleep(ERASE_POLL_S)

    async def _call(
        self, call: Awaitable[Any], read: Callable[[Any], T], *, changes: bool = False
    ) -> T:
        """Await one call and read its answer; raise a `ProviderError` if either fails.

        With `changes`, a call without a clear answer may have taken effect. mem0's errors hold
        content and the key. Ours is raised outside the `except` block, so that it does not carry
        them as its context.
        """
        try:
            with TimeLimit(asyncio.get_running_loop().time() + self._call_s):
                return read(await call)
        except ProviderError:
            raise  # raised by `read`, about a complete answer: the outcome is known
        except TimeoutError:
            error: ProviderError = Unavailable("too_slow")
        except Exception as client_error:  # noqa: BLE001 no error of mem0 may pass
            error = platform_error(client_error)
        error.unknown_outcome = changes and isinstance(error, (Unavailable, BadAnswer))
        raise error


def _dated(turn: Turn, text: str) -> str:
    """Return a text with the dates that its words mean where the user is, if that is known."""
    if not is_known_zone(turn.timezone or ""):
        return text
    return with_dates(text, local(turn.at, turn.timezone).date())


def _checked(owner: str) -> str:
    """Return the owner; raise `IllegalStep` for "", which mem0 would read as all owners."""
    if not owner:
        raise IllegalStep("memories need an owner")
    return owner


def _owner_filter(owner: str) -> dict[str, str]:
    return {"user_id": _checked(owner)}


def _metadata(turn: Turn) -> dict[str, str]:
    fields = {
        "turn_id": turn.id,
        "attempt": turn.attempt,
        "said_at": turn.at.isoformat(),
        "conversation_id": turn.conversation_id,
        "stored_by": turn.stored_by or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _copied_metadata(memory: RecalledMemory) -> dict[str, str]:
    fields = {
        "copied_from": memory.id,
        "turn_id": memory.turn_id,
        "said_at": memory.created_at and memory.created_at.isoformat(),
        "conversation_id": memory.conversation_id,
        "stored_by": memory.stored_by,
        "extraction_model": memory.extraction_model,
    }
    return {name: value for name, value in fields.items() if value}


def _copied(answer: Any) -> Sequence[str]:
    """Return the ids of what was stored; without extraction mem0 has done so when it answers."""
    added = _added(None, answer)
    if added.outcome is AddOutcome.PENDING:
        raise Unavailable("unexpected_answer", unknown_outcome=True)
    return added.memory_ids


def _owners(place: _Place, answer: Any) -> OwnerPage:
    """Return the users on a page of entities; the others are agents, apps and runs."""
    rows, _ = read_rows(answer["results"], EntityRow)
    users = tuple(row.name for row in rows if row.type == "user")
    return OwnerPage(users, place.next_page if answer.get("next") else None)


def _found(owner: str, answer: Any) -> SearchResult:
    rows, malformed = read_rows(answer["results"], MemoryRow)
    return SearchResult(tuple(memory_of(row, owner) for row in rows), malformed)


class _Place(NamedTuple):
    """A place in a list of mem0's: the number and the size of a page, and the row in it.

    A list is read in pages of the size that the first one had: mem0 counts pages, not rows.
    """

    number: int
    size: int
    row: int = 0

    @classmethod
    def of(cls, cursor: str | None, limit: int) -> _Place:
        """Read a cursor; without one, return the beginning of pages of `limit` rows."""
        if cursor is None:
            return cls(1, min(limit, MAX_PAGE))
        found = _CURSOR.fullmatch(cursor)
        place = cls(*map(int, found.groups(default="0"))) if found else None
        if place is None or not place.row < place.size <= MAX_PAGE:
            raise BadCursor
        return place

    @property
    def next_page(self) -> str:
        """Return the cursor of the beginning of the next page."""
        return f"{self.number + 1}x{self.size}"

    def at_row(self, row: int) -> str:
        """Return the cursor of a row of this page."""
        return f"{self.number}x{self.size}+{row}"


def _listed(owner: str, place: _Place, limit: int, answer: Any) -> MemoryPage:
    """Return at most `limit` rows of a page, without those of others, if mem0 gives any."""
    page, end = answer["results"], place.row + limit
    rows, malformed = read_rows(page[place.row : end], MemoryRow)
    mine = tuple(memory_of(row, owner) for row in rows if row.owner(owner) == owner)
    following = place.next_page if answer.get("next") else None
    if end < len(page):
        following = place.at_row(end)
    return MemoryPage(mine, following, malformed + len(rows) - len(mine))


def _owned(owner: str, answer: Any) -> RecalledMemory | None:
    if answer is None:
        return None
    row = MemoryRow.model_validate(answer)
    return memory_of(row, owner) if row.user_id == owner else None


def _is_edited(answer: Any) -> bool:
    return answer is not None


def _copies(owner: str, turn_id: str, answer: Any) -> list[list[str]]:
    """Return the ids of one owner's memories of one turn, grouped by attempt.

    If none can be read, nobody knows whether there are any: mem0 is taken to be out, so that
    nothing is added again.
    """
    rows, malformed = read_rows(answer["results"], StoredRow)
    wanted = (owner, turn_id)
    attempts = ids_by_attempt(
        row for row in rows if (row.owner(owner), row.metadata.turn_id) == wanted
    )
    if malformed and not attempts:
        raise Unavailable("malformed_rows")
    return [attempts[attempt] for attempt in sorted(attempts)]


def _is_left(owner: str, answer: Any) -> bool:
    rows, malformed = read_rows(answer["results"], StoredRow)
    return malformed > 0 or any(row.owner(owner) == owner for row in rows)


def _added(event_id: str | None, answer: Any) -> AddResult:
    """Return how an add ended.

    mem0 may have found no fact in it, or none that is new: it does not say which. Without ids, it
    has to be looked up what was stored.
    """
    event = Event.model_validate(answer)
    if not _has_ended(answer):
        return AddResult(AddOutcome.PENDING, event_id=event_id or event.required_name)
    if event.results == []:
        return NO_FACT
    rows, _ = read_rows(event.results or [], AddedRow)
    return AddResult(AddOutcome.STORED, tuple(row.id for row in rows))


def _has_ended(answer: Any) -> bool:
    """Return whether a queued request is done; raise `EventFailed` if it failed.

    A status that is unknown here counts as one in progress.
    """
    status = Event.model_validate(answer).status
    if status == "FAILED":
        raise EventFailed
    return status == "SUCCEEDED"
