"""The port on mem0's open-source class: threads, translated errors, the fields of a row."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.shared.errors import (
    AccessDenied,
    BadAnswer,
    IllegalStep,
    Misconfigured,
    ProviderError,
    Rejected,
    Unavailable,
)
from afterword.workers.adapters.mem0.open_source import OpenSourceMemories, StoreRow
from afterword.workers.ports import NO_FACT, AddOutcome, Turn

SECRET = "marmalade"
TURN = Turn("turn-1", f"I like {SECRET}", "Good.", datetime(2026, 5, 8, tzinfo=UTC))


class Mem0:
    """Stands in for mem0's `Memory`: rows from a list, and on demand an error or a wait."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.added: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.threads: set[str] = set()
        self.niceness: dict[str, int] = {}
        self.searches = 0

    def search(self, query: str, **options: Any) -> dict[str, Any]:
        self.searches += 1
        self._enter()
        return {"results": self.rows[: options["top_k"]]}

    def add(self, **arguments: Any) -> dict[str, Any]:
        self.gate.wait(20)
        self._enter()
        self.added.append(arguments)
        return {"results": [{"id": "an id that mem0 wished for"}]}

    def get_all(self, **options: Any) -> dict[str, Any]:
        self._enter()
        return {"results": self.rows}

    def _enter(self) -> None:
        name = threading.current_thread().name
        self.threads.add(name)
        self.niceness[name[:12]] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        if self.error is not None:
            raise self.error


class Plain:
    """A minimal recipe."""

    takes_batches = False

    def __init__(self, mem0: Mem0) -> None:
        self.mem0 = mem0
        self.erased: list[str] = []
        self.closed = False

    def build_memory(self) -> Any:
        return self.mem0

    def add_arguments(self, turn: Turn) -> Mapping[str, Any]:
        return {"messages": turn.user_text, "infer": False}

    def prompt_text(self, text: str, at: datetime | None) -> str:
        return text.upper()

    def stored_text(self, text: str, at: datetime | None) -> str:
        return text.lower()

    def list_rows(
        self, memory: Any, owner: str, limit: int, after: str | None
    ) -> tuple[Sequence[StoreRow], str | None]:
        return [], None

    def repeats(self, memory: Any, owner: str, text: str) -> Sequence[str]:
        return []

    def list_owners(
        self, memory: Any, limit: int, after: str | None
    ) -> tuple[Sequence[str], str | None]:
        return [], None

    def erase_owner(self, memory: Any, owner: str) -> None:
        self.erased.append(owner)

    def overwrite_deleted(self, memory: Any) -> None:
        pass

    def close(self, memory: Any) -> None:
        self.closed = True


@pytest.fixture
def mem0() -> Mem0:
    return Mem0()


@pytest.fixture
async def memories(mem0: Mem0) -> AsyncIterator[OpenSourceMemories]:
    opened = await OpenSourceMemories.open(Plain(mem0), threads=2, write_s=60)
    yield opened
    mem0.gate.set()
    await opened.aclose()


def row(**more: Any) -> dict[str, Any]:
    whole = {
        "id": "m1",
        "memory": "tea",
        "user_id": "ana",
        "score": 0.5,
        "created_at": "2026-05-08T00:00:00+00:00",
        "metadata": {"turn_id": "turn-1"},
    }
    return {key: value for key, value in (whole | more).items() if value is not None}


async def test_the_owner_of_a_memory_is_read_from_its_row(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    mem0.rows = [row(user_id="ben"), row(user_id=None)]
    found = (await memories.search("ana", "tea", 5)).memories
    assert [memory.owner for memory in found] == ["ben", "ana"]


@pytest.mark.finding(10)
@pytest.mark.skipif(sys.platform != "linux", reason="threads have a priority of their own on Linux")
async def test_searches_come_before_adds_for_the_cpu(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    mem0.gate.set()
    await memories.search("ana", "tea", 5)
    await memories.add("ana", TURN)

    assert mem0.niceness["memory-write"] == min(19, mem0.niceness["memory-searc"] + 10)


async def test_the_recipe_decides_the_text_of_a_memory(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    mem0.rows = [row()]
    (found,) = (await memories.search("ana", "tea", 5)).memories
    assert (found.id, found.text, found.score) == ("m1", "TEA", 0.5)
    assert (found.turn_id, found.created_at) == ("turn-1", TURN.at)


async def test_a_row_without_time_or_turn_is_a_memory(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    naive = row(created_at="2026-05-08T00:00:00", metadata=None)
    mem0.rows = [row(created_at=None, metadata=None), naive]
    found = (await memories.search("ana", "tea", 5)).memories
    assert [memory.turn_id for memory in found] == [None, None]
    assert [memory.created_at for memory in found] == [None, TURN.at]


async def test_a_turn_is_stamped_with_its_id_and_time(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    mem0.rows = [row()]
    added = await memories.add("ana", TURN)
    assert (added.outcome, added.memory_ids) == (AddOutcome.STORED, ("m1",))
    (told,) = mem0.added
    assert told["user_id"] == "ana"
    assert told["metadata"] == {"turn_id": "turn-1", "created_at": "2026-05-08T00:00:00+00:00"}


async def test_a_turn_without_a_row_afterwards_counts_as_nothing_to_store(
    memories: OpenSourceMemories,
) -> None:
    assert await memories.add("ana", TURN) is NO_FACT


async def test_a_search_does_not_wait_behind_adds(memories: OpenSourceMemories, mem0: Mem0) -> None:
    mem0.rows = [row()]
    mem0.gate.clear()
    adds = [asyncio.create_task(memories.add("ana", TURN)) for _ in range(10)]
    found = await asyncio.wait_for(memories.search("ana", "tea", 5), 5)
    assert len(found.memories) == 1
    assert not any(add.done() for add in adds)
    mem0.gate.set()
    await asyncio.gather(*adds)


async def test_mem0_never_runs_on_the_event_loop(memories: OpenSourceMemories, mem0: Mem0) -> None:
    await memories.search("ana", "tea", 5)
    await memories.add("ana", TURN)
    await memories.find("ana", "turn-1")
    assert threading.current_thread().name not in mem0.threads
    assert all(name.startswith("memory-") for name in mem0.threads)


async def test_a_search_cancelled_before_a_thread_takes_it_never_runs(
    memories: OpenSourceMemories, mem0: Mem0
) -> None:
    held = threading.Event()
    for _ in range(2):  # as many as there are threads
        memories._searching.submit(held.wait, 20)
    search = asyncio.create_task(memories.search("ana", "tea", 5))
    await asyncio.wait([search], timeout=0.05)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    held.set()
    await memories.aclose()
    assert mem0.searches == 0


async def test_closing_waits_for_the_calls_in_progress(mem0: Mem0) -> None:
    recipe = Plain(mem0)
    memories = await OpenSourceMemories.open(recipe, threads=1, write_s=60)
    mem0.gate.clear()
    add = asyncio.create_task(memories.add("ana", TURN))
    closing = asyncio.create_task(memories.aclose())
    await asyncio.wait([add, closing], timeout=0.05)
    assert not closing.done()
    assert not recipe.closed
    mem0.gate.set()
    assert (await add).outcome is AddOutcome.NOTHING
    await closing
    assert recipe.closed


async def test_following_an_add_is_an_error(memories: OpenSourceMemories) -> None:
    with pytest.raises(IllegalStep):
        await memories.follow("ana", "event-1")


async def test_the_recipe_erases_an_owner(mem0: Mem0) -> None:
    recipe = Plain(mem0)
    memories = await OpenSourceMemories.open(recipe, threads=1, write_s=60)
    await memories.forget("ana")
    await memories.aclose()
    assert recipe.erased == ["ana"]


def sqlite_error(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind(SECRET)
    error.sqlite_errorcode = code
    return error


FAILURES: list[tuple[Exception, type[ProviderError], str]] = [
    (sqlite_error(sqlite3.SQLITE_BUSY), Unavailable, "store_busy"),
    (sqlite_error(sqlite3.SQLITE_BUSY_SNAPSHOT), Unavailable, "store_busy"),
    (sqlite_error(sqlite3.SQLITE_LOCKED), Unavailable, "store_busy"),
    (sqlite_error(sqlite3.SQLITE_FULL), Unavailable, "store_full"),
    (sqlite_error(sqlite3.SQLITE_IOERR_WRITE), Unavailable, "store_unavailable"),
    (sqlite_error(sqlite3.SQLITE_CANTOPEN), Unavailable, "store_unavailable"),
    (sqlite_error(sqlite3.SQLITE_READONLY), Unavailable, "store_unavailable"),
    (sqlite_error(sqlite3.SQLITE_CORRUPT, sqlite3.DatabaseError), AccessDenied, "store_broken"),
    (sqlite_error(sqlite3.SQLITE_NOTADB, sqlite3.DatabaseError), AccessDenied, "store_broken"),
    (sqlite_error(sqlite3.SQLITE_ERROR), BadAnswer, "mem0_failed"),
    (sqlite3.ProgrammingError(SECRET), BadAnswer, "mem0_failed"),
    (ValueError(SECRET), Rejected, "not_accepted"),
    (KeyError(SECRET), BadAnswer, "mem0_failed"),
    (RuntimeError(SECRET), BadAnswer, "mem0_failed"),
]


@pytest.mark.parametrize(("error", "kind", "code"), FAILURES, ids=lambda value: repr(value)[:40])
async def test_every_error_is_translated_and_quotes_nothing(
    memories: OpenSourceMemories,
    mem0: Mem0,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    kind: type[ProviderError],
    code: str,
) -> None:
    mem0.error = error
    caplog.set_level(logging.DEBUG)
    with pytest.raises(kind) as raised:
        await memories.add("ana", TURN)
    assert (raised.value.code, raised.value.unknown_outcome) == (code, False)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__
    assert (
        f"mem0 failed: {type(error).__name__} at tests/unit/test_mem0_open_source.py:"
        in caplog.text
    )
    assert SECRET not in caplog.text


@pytest.mark.parametrize("error", [Misconfigured("AFTERWORD_DATA_DIR", "no"), Unavailable("busy")])
async def test_our_own_errors_pass_unchanged(
    memories: OpenSourceMemories, mem0: Mem0, error: Exception
) -> None:
    mem0.error = error
    with pytest.raises(type(error)) as raised:
        await memories.search("ana", "tea", 5)
    assert raised.value is error
