"""Keeps the memories of the default tenant under bare user ids, where others already have them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from afterword.shared.names import bare_memory_key, owner_of_bare_key
from afterword.workers.ports import (
    AddResult,
    MemoryPage,
    MigratableMemories,
    OwnerPage,
    RecalledMemory,
    SearchResult,
    Turn,
)


class BareOwners:
    """Passes every call on with the bare key of its owner."""

    def __init__(self, memories: MigratableMemories) -> None:
        self._memories = memories

    @property
    def takes_batches(self) -> bool:
        """What the backend says."""
        return self._memories.takes_batches

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:
        """Search, and name the owners of what was found as the caller does."""
        key = bare_memory_key(owner)
        found = await self._memories.search(key, query, limit)
        named = tuple(_named(memory, key, owner) for memory in found.memories)
        return replace(found, memories=named)

    async def add(self, owner: str, turn: Turn) -> AddResult:
        """Store one turn."""
        return await self._memories.add(bare_memory_key(owner), turn)

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn."""
        return await self._memories.find(bare_memory_key(owner), turn_id)

    async def follow(self, owner: str, event_id: str) -> AddResult:
        """Return the result of an add that returned `PENDING`."""
        return await self._memories.follow(bare_memory_key(owner), event_id)

    async def find_copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same ids as `find`, grouped by attempt."""
        return await self._memories.find_copies(bare_memory_key(owner), turn_id)

    async def list_page(self, owner: str, limit: int, after: str | None = None) -> MemoryPage:
        """Return a page of memories, also of those that Afterword did not store."""
        key = bare_memory_key(owner)
        page = await self._memories.list_page(key, limit, after)
        return replace(page, memories=tuple(_named(each, key, owner) for each in page.memories))

    async def get(self, owner: str, memory_id: str) -> RecalledMemory | None:
        """Return one memory of this owner."""
        key = bare_memory_key(owner)
        found = await self._memories.get(key, memory_id)
        return found and _named(found, key, owner)

    async def repeats(self, owner: str, text: str) -> Sequence[str]:
        """Return the ids of the memories of this owner that say this text."""
        return await self._memories.repeats(bare_memory_key(owner), text)

    async def edit(self, owner: str, memory_id: str, text: str) -> bool:
        """Replace the text of one memory of this owner."""
        return await self._memories.edit(bare_memory_key(owner), memory_id, text)

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:
        """Remove single memories of this owner."""
        await self._memories.remove(bare_memory_key(owner), memory_ids)

    async def forget(self, owner: str) -> None:
        """Remove everything of this owner, also what Afterword did not store."""
        await self._memories.forget(bare_memory_key(owner))

    async def list_owners(self, limit: int, after: str | None = None) -> OwnerPage:
        """Return owners as the caller names them; nobody of Afterword's has another name."""
        page = await self._memories.list_owners(limit, after)
        return replace(page, owners=tuple(owner_of_bare_key(key) for key in page.owners))

    async def copy(self, owner: str, memory: RecalledMemory) -> Sequence[str]:
        """Store a memory of another backend."""
        return await self._memories.copy(bare_memory_key(owner), memory)

    async def aclose(self) -> None:
        """Close the backend."""
        await self._memories.aclose()


def _named(memory: RecalledMemory, key: str, owner: str) -> RecalledMemory:
    """Return a memory with its owner as the caller names them; "" for anybody else."""
    return replace(memory, owner=owner if memory.owner == key else "")
