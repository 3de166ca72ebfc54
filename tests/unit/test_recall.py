"""Recall: within its budget, only of the one asked for, never in the way."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import cast

import pytest

from afterword.shared.errors import AccessDenied, ProviderError, Rejected, Unavailable
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.records import CallOutcome, GateDecision, GateState
from afterword.workers.gate import LOOK_S, GateClient
from afterword.workers.ports import RecalledMemory, SearchResult
from afterword.workers.replies.recall import (
    OFF,
    QUERY_CHARACTERS,
    UNAVAILABLE,
    Recaller,
    memory_used,
)
from tests.kit.fakes.gates import FakeGates
from tests.kit.fakes.memory import FakeMemories

AT = datetime(2026, 5, 8, tzinfo=UTC)
SECRET = "marmalade"


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def row(name: str, owner: str = "a/ann", score: float = 0.5) -> RecalledMemory:
    return RecalledMemory(name, owner, SECRET, score, AT, None)


@pytest.fixture
def memories() -> FakeMemories:
    return FakeMemories()


def recaller(
    memories: FakeMemories | None,
    *,
    budget_s: float = 5.0,
    limit: int = 5,
    least_score: float = 0.0,
    clock: Clock | None = None,
    gates: FakeGates | None = None,
) -> Recaller:
    house = GateClient(cast("Gates", gates or FakeGates()), clock or Clock())
    return Recaller(
        memories,
        house,
        budget_s=budget_s,
        limit=limit,
        least_score=least_score,
    )


async def names(asked: Recaller) -> list[str] | None:
    recall = await asked.recall("a/ann", "query")
    return None if recall.memories is None else [memory.id for memory in recall.memories]


async def test_without_a_memory_it_is_off() -> None:
    assert await recaller(None).recall("a/ann", "query") == OFF


async def test_an_empty_memory_is_not_an_unavailable_one(memories: FakeMemories) -> None:
    assert await names(recaller(memories)) == []


async def test_rows_of_another_owner_are_dropped_and_reported(
    memories: FakeMemories, caplog: pytest.LogCaptureFixture
) -> None:
    for stray in (row("m1"), row("m2", "a/bob"), row("m3", "a/ann "), row("m4", "")):
        memories.plant("a/ann", stray)

    assert await names(recaller(memories)) == ["m1"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "3" in record.message
    assert SECRET not in caplog.text
    assert "bob" not in caplog.text


@pytest.mark.finding(1)
@pytest.mark.finding(11)
async def test_dropped_rows_are_counted_as_lost(memories: FakeMemories) -> None:
    memories.plant("a/ann", row("m1"))
    memories.plant("a/ann", row("m2", "a/bob"))
    memories.malformed = 3

    recall = await recaller(memories).recall("a/ann", "query")

    assert (recall.found, recall.lost) == (5, 4)


async def test_a_row_without_a_score_is_as_good_as_mem0_says(memories: FakeMemories) -> None:
    memories.plant("a/ann", replace(row("m"), score=None))

    assert await names(recaller(memories, least_score=0.5)) == ["m"]
    assert memory_used(replace(row("m"), score=None)).score is None


async def test_rows_below_the_least_score_are_left_out(memories: FakeMemories) -> None:
    memories.plant("a/ann", row("good", score=0.5))
    memories.plant("a/ann", row("bad", score=0.49))

    assert await names(recaller(memories, least_score=0.5)) == ["good"]


async def test_no_more_rows_than_asked_for_are_taken(memories: FakeMemories) -> None:
    class Generous(FakeMemories):
        async def search(self, owner: str, query: str, limit: int) -> SearchResult:
            return SearchResult(tuple(row(f"m{n}") for n in range(limit * 3)))

    assert await names(recaller(Generous(), limit=2)) == ["m0", "m1"]


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("revoked"), Rejected("bad")])
async def test_a_memory_that_fails_is_unavailable_and_raises_nothing(
    memories: FakeMemories, error: ProviderError, caplog: pytest.LogCaptureFixture
) -> None:
    memories.fail("search", error)

    assert await recaller(memories).recall("a/ann", SECRET) == UNAVAILABLE
    assert error.code in caplog.text
    assert SECRET not in caplog.text


async def test_a_memory_that_hangs_costs_the_budget_and_no_more(memories: FakeMemories) -> None:
    memories.hang("search")
    async with asyncio.timeout(5):
        assert await names(recaller(memories, budget_s=0.02)) is None


async def test_who_stops_waiting_stops_recall(memories: FakeMemories) -> None:
    hang = memories.hang("search")
    work = asyncio.create_task(recaller(memories).recall("a/ann", "query"))
    await hang.reached.wait()
    work.cancel()

    with pytest.raises(asyncio.CancelledError):
        await work


async def test_a_memory_behind_a_shut_gate_is_not_asked_and_costs_nothing(
    memories: FakeMemories,
) -> None:
    gates, clock = FakeGates(), Clock()
    asked = recaller(memories, gates=gates, clock=clock)
    memories.fail("search", Unavailable("down"), times=5)
    for _ in range(5):
        assert await names(asked) is None
        await asked._gates.flush()
    gates.asked.clear()
    for _ in range(100):
        assert await names(asked) is None
    assert len(memories.calls) == 5
    assert len(gates.asked) == 1, "one looks in for the whole process"

    clock.now += LOOK_S
    gates.stand = GateDecision(GateState.SHUT, canary=True)
    assert await names(asked) == []
    await asked._gates.flush()
    assert gates.told[-1].outcome is CallOutcome.WORKED
    assert await names(asked) == []


async def test_a_memory_that_hangs_is_a_failure_of_its_gate(memories: FakeMemories) -> None:
    gates = FakeGates()
    asked = recaller(memories, gates=gates, budget_s=0.02)
    memories.hang("search")

    assert await names(asked) is None
    await asked._gates.flush()
    assert [report.outcome for report in gates.told] == [CallOutcome.FAILED]


async def test_what_memory_refuses_says_nothing_of_its_gate(memories: FakeMemories) -> None:
    gates = FakeGates()
    asked = recaller(memories, gates=gates)
    memories.fail("search", Rejected("bad"), times=10)
    for _ in range(10):
        assert await names(asked) is None
    await asked._gates.flush()

    assert gates.told == []


async def test_a_gate_that_hangs_costs_the_budget_and_no_more(memories: FakeMemories) -> None:
    class Hanging(FakeGates):
        async def request(self, name: str, token: str, *, canary_s: float) -> GateDecision:
            await asyncio.Event().wait()
            raise AssertionError

    asked = recaller(memories, gates=Hanging(), budget_s=0.02)
    asked._gates.receive("shut recall")
    async with asyncio.timeout(5):
        assert await names(asked) is None


async def test_a_long_query_is_cut(memories: FakeMemories) -> None:
    await recaller(memories).recall("a/ann", "x" * 10 * QUERY_CHARACTERS)

    assert len(memories.calls[0].about) == QUERY_CHARACTERS


def test_a_reply_lists_a_memory_without_its_owner() -> None:
    used = memory_used(row("m1", score=0.123456))

    assert (used.id, used.text, used.score, used.created_at) == ("m1", SECRET, 0.1235, AT)
    assert "ann" not in used.model_dump_json()
