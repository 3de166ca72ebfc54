"""An export says what it lacks: rows that cannot be read, and memory that is off."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from contextlib import nullcontext
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from afterword.producer.cli import memories as commands
from afterword.producer.cli.chat_commands import run_command
from afterword.producer.cli.chat_session import ChatSession
from afterword.producer.client.async_memories import AsyncUserMemories
from afterword.producer.client.blocking import BlockingJobService
from afterword.producer.client.export_document import dropped_in
from afterword.producer.client.job_service import JobService
from afterword.producer.client.memory_calls import MemoryCall, Owner
from afterword.producer.client.sync_memories import UserMemories
from afterword.shared.errors import MemoriesUnavailable
from tests.kit.command_line import afterword

ANN = Owner("t", "ann")
LEFT_OUT = "6 more could not be read, or were another user's"


class Switched:
    """Answers so many pages of memories before memory is off, or with `ends` that many in all."""

    def __init__(self, pages: int, *, ends: bool = False) -> None:
        self._pages = pages
        self._ends = ends

    def now(self) -> datetime:
        return datetime(2026, 5, 8, tzinfo=UTC)

    def ask_about_memories(self, call: MemoryCall) -> Any:
        if not self._pages:
            raise MemoriesUnavailable("memory_off")
        self._pages -= 1
        memories = [{"id": f"m{self._pages}", "text": "I keep birds."}]
        following = None if self._ends and not self._pages else "more"
        return {"memories": memories, "next": following, "dropped": 2}

    def records_of(self, _: Owner) -> Generator[tuple[str, Any], None, None]:
        yield "imported_turns", "key"


class AsyncSwitched(Switched):
    """The same, awaited."""

    async def ask_about_memories(self, call: MemoryCall) -> Any:
        return super().ask_about_memories(call)

    async def records_of(self, owner: Owner) -> AsyncGenerator[tuple[str, Any], None]:  # type: ignore[override]
        for record in super().records_of(owner):
            yield record


async def exported(pages: int, *, blocking: bool, ends: bool = False) -> str:
    if blocking:
        mine = UserMemories(cast("BlockingJobService", Switched(pages, ends=ends)), ANN)
        return "".join(mine.export())
    awaited = AsyncUserMemories(cast("JobService", AsyncSwitched(pages, ends=ends)), ANN)
    return "".join([piece async for piece in awaited.export()])


@pytest.mark.parametrize("blocking", [False, True])
async def test_memory_that_is_off_is_said_before_anything_else(blocking: bool) -> None:
    text = await exported(0, blocking=blocking)
    assert '"memory": "off"' in text
    assert '"imported_turns": [\n"key"\n]' in text
    assert text.count('"format"') == 1
    assert json.loads(text)["memories_dropped"] == 0


@pytest.mark.parametrize("blocking", [False, True])
async def test_memory_that_is_switched_off_meanwhile_ends_the_export(blocking: bool) -> None:
    with pytest.raises(MemoriesUnavailable) as raised:
        await exported(2, blocking=blocking)
    assert raised.value.code == "memory_off"


@pytest.mark.parametrize("blocking", [False, True])
async def test_rows_that_could_not_be_read_are_counted(blocking: bool) -> None:
    told = json.loads(await exported(3, blocking=blocking, ends=True))
    assert (len(told["memories"]), told["memories_dropped"]) == (3, 6)


@pytest.mark.parametrize(
    ("piece", "dropped"),
    [
        (']\n,\n"memories_dropped": 6', 6),
        (',\n"memories_dropped": 0', 0),
        ('"I said \\"memories_dropped\\": 9"', 0),
        ('{"text": "x"}', 0),
    ],
)
def test_only_the_count_itself_is_read_as_one(piece: str, dropped: int) -> None:
    assert dropped_in(piece) == dropped


@pytest.mark.parametrize("command", ["export", "list"])
def test_the_command_says_how_many_rows_it_lacks(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(commands, "Producer", Producing)
    monkeypatch.setattr(commands, "AsyncProducer", AsyncProducing)
    printed = afterword("memories", command, "ann", "--tenant", "t")
    assert (printed.code, printed.stderr) == (0, LEFT_OUT + "\n")


def test_a_chat_says_how_many_rows_it_does_not_show(capsys: pytest.CaptureFixture[str]) -> None:
    session = SimpleNamespace(producer=Producing(), user_id="ann", tenant="t", last_reply=None)
    run_command(cast("ChatSession", session), "/memories")
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:] == ["  - I keep birds."] * 3 + [f"[{LEFT_OUT}]"]


class Producing(nullcontext[None]):
    """Stands in for a producer whose user has three memories, and twice as many broken rows."""

    def __enter__(self) -> Self:  # type: ignore[override]
        return self

    def memories(self, user_id: str, *, tenant: str) -> UserMemories:
        service = cast("BlockingJobService", Switched(3, ends=True))
        return UserMemories(service, Owner(tenant, user_id))


class AsyncProducing(nullcontext[None]):
    """The same, awaited."""

    async def __aenter__(self) -> Self:  # type: ignore[override]
        return self

    def memories(self, user_id: str, *, tenant: str) -> AsyncUserMemories:
        service = cast("JobService", AsyncSwitched(3, ends=True))
        return AsyncUserMemories(service, Owner(tenant, user_id))
