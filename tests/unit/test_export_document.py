"""An export of a user whose workers switch memory off while it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from afterword.producer.client.async_memories import AsyncUserMemories
from afterword.producer.client.blocking import BlockingJobService
from afterword.producer.client.job_service import JobService
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.producer.client.sync_memories import UserMemories
from afterword.shared.errors import MemoriesUnavailable

ANN = Owner("t", "ann")


class Switched:
    """Answers so many pages of memories before memory is off."""

    def __init__(self, pages: int) -> None:
        self._pages = pages

    def now(self) -> datetime:
        return datetime(2026, 5, 8, tzinfo=UTC)

    def ask_about_memories(self, call: MemoryCall) -> Any:
        if not self._pages:
            raise MemoriesUnavailable("memory_off")
        self._pages -= 1
        return {"memories": [{"id": f"m{self._pages}", "text": "I keep birds."}], "next": "more"}

    def records_of(self, _: Owner) -> Generator[tuple[str, Any], None, None]:
        yield "imported_turns", "key"


class AsyncSwitched(Switched):
    """The same, awaited."""

    async def ask_about_memories(self, call: MemoryCall) -> Any:
        return super().ask_about_memories(call)

    async def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:  # type: ignore[override]
        for record in super().records_of(owner):
            yield record


async def exported(pages: int, *, blocking: bool) -> str:
    if blocking:
        mine = UserMemories(cast("BlockingJobService", Switched(pages)), ANN)
        return "".join(mine.export())
    awaited = AsyncUserMemories(cast("JobService", AsyncSwitched(pages)), ANN)
    return "".join([piece async for piece in awaited.export()])


@pytest.mark.parametrize("blocking", [False, True])
async def test_memory_that_is_off_is_said_before_anything_else(blocking: bool) -> None:
    text = await exported(0, blocking=blocking)
    assert '"memory": "off"' in text
    assert '"imported_turns": [\n"key"\n]' in text
    assert text.count('"format"') == 1


@pytest.mark.parametrize("blocking", [False, True])
async def test_memory_that_is_switched_off_meanwhile_ends_the_export(blocking: bool) -> None:
    with pytest.raises(MemoriesUnavailable) as raised:
        await exported(2, blocking=blocking)
    assert raised.value.code == "memory_off"
