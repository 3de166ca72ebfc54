"""mem0's open-source class behind the memory port. It is synchronous, so it runs on threads."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from afterword.shared.errors import BadAnswer, IllegalStep, Unavailable
from afterword.workers.adapters.mem0.answers import (
    MemoryRow,
    StoredRow,
    ids_by_attempt,
    memory_of,
    read_rows,
)
from afterword.workers.adapters.mem0.errors import translate_errors
from afterword.workers.adapters.mem0.write_deadline import Deadline
from afterword.workers.ports import (
    KNOWN_FACTS,
    NO_FACT,
    AddOutcome,
    AddResult,
    MemoryPage,
    OwnerPage,
    RecalledMemory,
    SearchResult,
    Turn,
)

T = TypeVar("T")

#: How much nicer threads are that write: about a tenth of the CPU if searches want all of it.
_NICENESS = 10

#: The most memories of one turn that are looked up. Without extraction a turn has one.
MAX_ROWS_PER_TURN = 100


class StoreRow(Protocol):
    """A memory as a vector store returns it."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def payload(self) -> Mapping[str, Any]:
        """Its text, as `data`, and all else."""
        ...


class Recipe(Protocol):
    """What differs between the backends that run mem0's open-source class.

    Methods that take or return a `Memory` run on threads; the others must not block.
    """

    @property
    def takes_batches(self) -> bool:
        """Whether one add for several turns costs less than one add for each."""
        ...

    def build_memory(self) -> Any:
        """Import mem0 and build its `Memory`."""
        ...

    def add_arguments(self, turn: Turn) -> Mapping[str, Any]:
        """Return the arguments of `Memory.add` for a turn, without the owner.

        What it has as `metadata` is added to that of every backend.
        """
        ...

    def prompt_text(self, text: str, at: datetime | None) -> str:
        """Return the text of a memory as it goes into a prompt."""
        ...

    def stored_text(self, text: str, at: datetime | None) -> str:
        """Return the text of a memory as it is stored: what `prompt_text` makes a prompt's of."""
        ...

    def list_rows(
        self, memory: Any, owner: str, limit: int, after: str | None
    ) -> tuple[Sequence[StoreRow], str | None]:
        """Return a page of an owner's rows, those stored last first, and what continues after it.

        Raises `BadCursor` unless `after` is what continued after an earlier page.
        """
        ...

    def repeats(self, memory: Any, owner: str, text: str) -> Sequence[str]:
        """Return the ids of an owner's rows that say a text, as `prompt_text` returns it."""
        ...

    def list_owners(
        self, memory: Any, limit: int, after: str | None
    ) -> tuple[Sequence[str], str | None]:
        """Return a page of the owners of rows, and what continues after it.

        Raises `BadCursor` unless `after` is what continued after an earlier page.
        """
        ...

    def erase_owner(self, memory: Any, owner: str) -> None:
        """Delete everything of an owner, permanently."""
        ...

    def overwrite_deleted(self, memory: Any) -> None:
        """Leave no bytes of texts that were deleted or replaced, where that is the store's job.

        If it raises `Unavailable`, some are left, and it can be repeated.
        """
        ...

    def close(self, memory: Any) -> None:
        """Close connections and files."""
        ...


class OpenSourceMemories:
    """Implements the memory port on an instance of mem0's `Memory`.

    Searches and writes have separate thread pools of up to `threads` threads, so that a search
    never waits behind an add; those that write have a lower priority for the CPU. A call that is
    cancelled before a thread starts it never runs. One that runs cannot be interrupted, and adding
    the same turn again is harmless. But an add that was cancelled, or takes longer than `write_s`
    seconds, cannot commit after that: its user may have been erased meanwhile.
    """

    def __init__(self, memory: Any, recipe: Recipe, threads: int, write_s: float) -> None:
        self._memory = memory
        self._recipe = recipe
        self._write_s = write_s
        self._searching = ThreadPoolExecutor(threads, "memory-search")
        self._writing = ThreadPoolExecutor(threads, "memory-write", initializer=_yield_the_cpu)

    @property
    def takes_batches(self) -> bool:
        """What the recipe says."""
        return self._recipe.takes_batches

    @classmethod
    async def open(cls, recipe: Recipe, threads: int, write_s: float) -> OpenSourceMemories:
        """Build mem0's `Memory` off the event loop: the import alone takes a second or more."""
        return cls(await asyncio.to_thread(recipe.build_memory), recipe, threads, write_s)

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Search for at most `limit` memories of `owner`."""
        return await _run_on(self._searching, partial(self._search, owner, query, limit))

    async def add(self, owner: str, turn: Turn) -> AddResult:
        """Store one turn."""
        deadline = Deadline(self._write_s)
        try:
            return await _run_on(self._writing, partial(self._add, owner, turn, deadline))
        except asyncio.CancelledError:
            deadline.give_up()
            raise

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn."""
        return await _run_on(self._writing, partial(self._find, owner, turn_id))

    async def follow(self, owner: str, event_id: str) -> AddResult:  # noqa: ARG002 - the port's signature
        """Raise `IllegalStep`: here an add has ended when it returns."""
        raise IllegalStep("this memory backend never answers `pending`, so nothing can be followed")

    async def find_copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same ids as `find`, grouped by the attempt that added them."""
        return await _run_on(self._writing, partial(self._copies, owner, turn_id))

    async def list_page(self, owner: str, limit: int, after: str | None = None) -> MemoryPage:
        """Return at most `limit` memories of this owner, those that were stored last first."""
        return await _run_on(self._writing, partial(self._page, owner, limit, after))

    async def get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        """Return one memory, None unless it exists and is this owner's."""
        return await _run_on(self._writing, partial(self._get, owner, memory_id))

    async def repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of the memories of this owner that say this text."""
        repeats = partial(self._recipe.repeats, self._memory, owner, text)
        return await _run_on(self._writing, repeats)

    async def edit(self, owner: str, memory_id: str, text: str) -> bool:
        """Replace the text of one memory; return false unless it exists and is this owner's."""
        return await _run_on(self._writing, partial(self._edit, owner, memory_id, text))

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        """Delete single memories of this owner; ids that do not exist are ignored."""
        await _run_on(self._writing, partial(self._remove, owner, memory_ids))

    async def forget(self, owner: str) -> None:
        """Delete everything of this owner; no error if there is nothing."""
        await _run_on(self._writing, partial(self._recipe.erase_owner, self._memory, owner))

    async def list_owners(self, limit: int, after: str | None = None) -> OwnerPage:
        """Return about `limit` owners of memories."""
        list_owners = partial(self._recipe.list_owners, self._memory, limit, after)
        owners, following = await _run_on(self._writing, list_owners)
        return OwnerPage(tuple(owners), following)

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        """Embed and store a memory of another backend as it is."""
        deadline = Deadline(self._write_s)
        try:
            return await _run_on(self._writing, partial(self._copy, owner, memory, deadline))
        except asyncio.CancelledError:
            deadline.give_up()
            raise

    async def aclose(self) -> None:
        """Finish the calls in progress, then close connections and files."""
        await asyncio.to_thread(self._close)

    def _search(self, owner: str, query: str, limit: int) -> SearchResult:
        # mem0's threshold cuts on the bare cosine, whose scale depends on the embedder.
        found = self._memory.search(query, filters={"user_id": owner}, top_k=limit, threshold=0.0)
        rows, malformed = read_rows(found["results"], MemoryRow)
        return SearchResult(tuple(self._recalled(row, owner) for row in rows), malformed)

    def _recalled(self, row: MemoryRow, asked: str) -> RecalledMemory:
        text = self._recipe.prompt_text(row.memory, row.created_at)
        return replace(memory_of(row, asked), text=text, created_at=row.created_at)

    def _add(self, owner: str, turn: Turn, deadline: Deadline) -> AddResult:
        arguments = dict(self._recipe.add_arguments(turn))
        metadata = arguments.pop("metadata", {}) | _metadata(turn)
        add = partial(self._memory.add, user_id=owner, metadata=metadata, **arguments)
        added = _written(deadline, add)
        # Not the ids that mem0 returns: a turn that was stored before keeps the ids it had.
        ids = self._find(owner, turn.id)
        if ids:
            return AddResult(AddOutcome.STORED, ids)
        return KNOWN_FACTS if added.get("has_facts") else NO_FACT

    def _find(self, owner: str, turn_id: str) -> tuple[str, ...]:
        return tuple(row.id for row in self._rows(owner, turn_id))

    def _copies(self, owner: str, turn_id: str) -> list[list[str]]:
        return list(ids_by_attempt(self._rows(owner, turn_id)).values())

    def _rows(self, owner: str, turn_id: str) -> Sequence[StoredRow]:
        filters = {"user_id": owner, "turn_id": turn_id}
        found = self._memory.get_all(filters=filters, top_k=MAX_ROWS_PER_TURN)
        rows, malformed = read_rows(found["results"], StoredRow)
        if malformed and not rows:
            raise Unavailable("malformed_rows")
        return rows

    def _page(self, owner: str, limit: int, after: str | None) -> MemoryPage:
        found, after = self._recipe.list_rows(self._memory, owner, limit, after)
        rows, malformed = read_rows([_as_row(one) for one in found], MemoryRow)
        return MemoryPage(tuple(self._recalled(row, owner) for row in rows), after, malformed)

    def _get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        found = self._memory.get(memory_id)
        if found is None or found.get("user_id") != owner:
            return None
        rows, _ = read_rows([found], MemoryRow)
        if not rows:
            raise BadAnswer("malformed_rows")
        return self._recalled(rows[0], owner)

    def _edit(self, owner: str, memory_id: str, text: str) -> bool:
        found = self._get(owner, memory_id)
        if found is None:
            return False
        self._memory.update(memory_id, text=self._recipe.stored_text(text, found.created_at))
        self._recipe.overwrite_deleted(self._memory)
        return True

    def _copy(self, owner: str, copied: RecalledMemory, deadline: Deadline) -> Sequence[str]:
        text = self._recipe.stored_text(copied.text, copied.created_at)
        # What `Memory.add` calls at its end. Before that, without a model, it only names roles.
        create = self._memory._create_memory  # noqa: SLF001
        _written(deadline, partial(create, text, {}, _copied_metadata(owner, copied)))
        turn = {"turn_id": copied.turn_id} if copied.turn_id else {}
        filters = {"user_id": owner, "copied_from": copied.id, **turn}
        found = self._memory.get_all(filters=filters, top_k=1)
        return [row.id for row in read_rows(found["results"], StoredRow)[0]]

    def _remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        for memory_id in memory_ids:
            row = self._memory.get(memory_id)
            if row is not None and row.get("user_id") == owner:
                self._memory.delete(memory_id)
        self._recipe.overwrite_deleted(self._memory)

    def _close(self) -> None:
        for pool in (self._searching, self._writing):
            pool.shutdown()
        self._recipe.close(self._memory)


class NoHistory:
    """Replaces mem0's history database, which keeps every text for ever.

    mem0 also reads each user's last ten messages from it as context for extraction. It would
    differ between processes, each of which sees only some turns, and erasing a user would not
    reach it in the others. What is known of a user is in the vector store only.
    """

    @classmethod
    def install(cls, memory: Any) -> None:
        """Close the history of a `Memory` and replace it."""
        memory.db.close()
        memory.db = cls()

    def get_last_messages(self, *_: object, **__: object) -> list[Any]:
        """Return none."""
        return []

    def save_messages(self, *_: object) -> None:
        """Keep nothing."""

    def batch_add_history(self, *_: object) -> None:
        """Keep nothing."""

    def add_history(self, *_: object, **__: object) -> None:
        """Keep nothing."""

    def close(self) -> None:
        """Do nothing."""


def _yield_the_cpu() -> None:
    """Let searches of all processes on this machine go first: a reply waits for a search."""
    if sys.platform == "linux":  # elsewhere it would be the priority of the whole process
        thread = threading.get_native_id()
        niceness = os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS
        os.setpriority(os.PRIO_PROCESS, thread, min(niceness, 19))


async def _run_on(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    with translate_errors():
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _written(deadline: Deadline, write: Callable[[], T]) -> T:
    with deadline.observed():
        return write()


def _as_row(found: StoreRow) -> Mapping[str, Any]:
    """Return a row of a vector store as mem0 does; in what it calls metadata, ours is read only."""
    payload = found.payload
    named = {name: payload.get(name) for name in ("user_id", "created_at", "updated_at")}
    return {"id": found.id, "memory": payload.get("data"), "metadata": payload, **named}


def _metadata(turn: Turn) -> dict[str, str]:
    fields = {
        "turn_id": turn.id,
        "created_at": turn.at.isoformat(),
        "conversation_id": turn.conversation_id,
        "attempt": turn.attempt or None,
        "stored_by": turn.stored_by or None,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _copied_metadata(owner: str, copied: RecalledMemory) -> dict[str, str]:
    fields = {
        "user_id": owner,
        "copied_from": copied.id,
        "turn_id": copied.turn_id,
        "created_at": copied.created_at and copied.created_at.isoformat(),
        "conversation_id": copied.conversation_id,
        "stored_by": copied.stored_by,
        "extraction_model": copied.extraction_model,
    }
    return {name: value for name, value in fields.items() if value}
