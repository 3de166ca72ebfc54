"""mem0's open-source class behind the memory port: a synchronous one, on threads of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol, TypeVar

from afterword.shared.errors import IllegalStep
from afterword.workers.adapters.mem0.errors import translated
from afterword.workers.ports import Added, Kept, Recalled, Turn
from afterword.workers.rules.write_deadline import Deadline

T = TypeVar("T")

#: How many memories of one turn are looked for; without extraction there is one.
MOST_ROWS_OF_A_TURN = 100


class Recipe(Protocol):
    """What tells one self-hosted mem0 from another.

    What takes or gives a `Memory` runs on threads, the rest must not wait for anything.
    """

    @property
    def takes_batches(self) -> bool:
        """True if one add for several turns costs less than one for each."""
        ...

    def open(self) -> Any:
        """Import mem0 and build its `Memory`."""
        ...

    def reason_to_skip(self, turn: Turn) -> str | None:
        """Return why this turn is not to be stored, if it is not."""
        ...

    def compose(self, turn: Turn) -> Mapping[str, Any]:
        """Return what `Memory.add` is told of a turn, besides owner and metadata."""
        ...

    def shown(self, text: str, at: datetime | None) -> str:
        """Return the text of a memory as the model is to see it."""
        ...

    def erase(self, memory: Any, owner: str) -> None:
        """Remove everything of an owner for good."""
        ...

    def close(self, memory: Any) -> None:
        """Close connections and files."""
        ...


class SelfHosted:
    """Keeps memories in a mem0 of our own.

    Searches and writes have threads of their own, `threads` each and started at need, so that a
    search never waits in line behind an add. A call that is given up before its thread takes it
    up never runs. One that runs is not cut off, and adding the same turn again is harmless; but an
    add that was given up, or takes longer than `write_s` seconds, writes nothing from then on: its
    user may have been erased meanwhile.
    """

    def __init__(self, memory: Any, recipe: Recipe, threads: int, write_s: float) -> None:
        self._memory = memory
        self._recipe = recipe
        self._write_s = write_s
        self._searching = ThreadPoolExecutor(threads, "memory-search")
        self._writing = ThreadPoolExecutor(threads, "memory-write")

    @property
    def takes_batches(self) -> bool:
        """True if the recipe says so."""
        return self._recipe.takes_batches

    @classmethod
    async def open(cls, recipe: Recipe, threads: int, write_s: float) -> SelfHosted:
        """Build a mem0 off the event loop: its import alone takes a second or more."""
        return cls(await asyncio.to_thread(recipe.open), recipe, threads, write_s)

    async def search(self, owner: str, query: str, limit: int) -> Sequence[Recalled]:
        """Return at most `limit` memories of `owner`, best first."""
        return await _on(self._searching, partial(self._search, owner, query, limit))

    async def add(self, owner: str, turn: Turn) -> Added:
        """Store one turn, unless the recipe has a reason to skip it."""
        reason = self._recipe.reason_to_skip(turn)
        if reason is not None:
            return Added(Kept.SKIPPED, reason=reason)
        deadline = Deadline(self._write_s)
        try:
            return await _on(self._writing, partial(self._add, owner, turn, deadline))
        except asyncio.CancelledError:
            deadline.give_up()
            raise

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn."""
        return await _on(self._writing, partial(self._find, owner, turn_id))

    async def follow(self, owner: str, event_id: str) -> Added:  # noqa: ARG002 - as the port has it
        """Raise `IllegalStep`: here an add is over when it answers."""
        raise IllegalStep("a self-hosted memory never answers pending, there is nothing to follow")

    async def copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same ids as `find`, those of each attempt that added the turn by itself."""
        return await _on(self._writing, partial(self._copies, owner, turn_id))

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        """Remove single memories of this owner; no error for one that is gone."""
        await _on(self._writing, partial(self._remove, owner, memory_ids))

    async def forget(self, owner: str) -> None:
        """Remove everything of this owner; no error if there is nothing."""
        await _on(self._writing, partial(self._recipe.erase, self._memory, owner))

    async def aclose(self) -> None:
        """Finish what was asked for, then close the files."""
        await asyncio.to_thread(self._close)

    def _search(self, owner: str, query: str, limit: int) -> list[Recalled]:
        # The threshold would cut on the bare cosine, whose scale depends on the embedder.
        found = self._memory.search(query, filters={"user_id": owner}, top_k=limit, threshold=0.0)
        return [self._recalled(row) for row in found["results"]]

    def _recalled(self, row: Mapping[str, Any]) -> Recalled:
        at = _moment(row.get("created_at"))
        return Recalled(
            id=row["id"],
            owner=row.get("user_id") or "",
            text=self._recipe.shown(row["memory"], at),
            score=row["score"],
            created_at=at,
            turn_id=(row.get("metadata") or {}).get("turn_id"),
        )

    def _add(self, owner: str, turn: Turn, deadline: Deadline) -> Added:
        told = self._recipe.compose(turn)
        with deadline.observed():
            self._memory.add(user_id=owner, metadata=_metadata(turn), **told)
        # The ids that mem0 answers are those it wished for: a turn stored before keeps its own.
        ids = self._find(owner, turn.id)
        return Added(Kept.STORED, ids) if ids else Added(Kept.NOTHING)

    def _find(self, owner: str, turn_id: str) -> tuple[str, ...]:
        return tuple(row["id"] for row in self._rows(owner, turn_id))

    def _copies(self, owner: str, turn_id: str) -> list[list[str]]:
        by_attempt: defaultdict[str, list[str]] = defaultdict(list)
        for row in self._rows(owner, turn_id):
            by_attempt[(row.get("metadata") or {}).get("attempt", "")].append(row["id"])
        return list(by_attempt.values())

    def _rows(self, owner: str, turn_id: str) -> Sequence[Mapping[str, Any]]:
        filters = {"user_id": owner, "turn_id": turn_id}
        found = self._memory.get_all(filters=filters, top_k=MOST_ROWS_OF_A_TURN)
        rows: Sequence[Mapping[str, Any]] = found["results"]
        return rows

    def _remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        for memory_id in memory_ids:
            row = self._memory.get(memory_id)
            if row is not None and row.get("user_id") == owner:
                self._memory.delete(memory_id)

    def _close(self) -> None:
        for pool in (self._searching, self._writing):
            pool.shutdown()
        self._recipe.close(self._memory)


async def _on(pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    with translated():
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _metadata(turn: Turn) -> dict[str, str]:
    known = {
        "turn_id": turn.id,
        "created_at": turn.at.isoformat(),
        "conversation_id": turn.conversation_id,
        "attempt": turn.attempt or None,
    }
    return {name: value for name, value in known.items() if value is not None}


def _moment(iso: str | None) -> datetime | None:
    if iso is None:
        return None
    at = datetime.fromisoformat(iso)
    return at if at.tzinfo else at.replace(tzinfo=UTC)
