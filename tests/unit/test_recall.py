"""Recall: within its budget, only of the one asked for, never in the way."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from afterword.shared.errors import AccessDenied, ProviderError, Rejected, Unavailable
from afterword.shared.ledger.gates import Gates
from afterword.shared.ledger.records import CallOutcome, GateDecision, GateState
from afterword.workers.gate import LOOK_S, GateClient
from afterword.workers.ports import Recall, RecalledMemory, SearchResult
from afterword.workers.replies.recall import (
    OFF,
    QUERY_CHARACTERS,
    RecallBudget,
    Recaller,
)
from afterword.workers.replies.recall_queue import (
    BACKLOG_S,
    CALM_S,
    LONGEST_PACE_S,
    RecallQueue,
)
from tests.kit.fakes.gates import FakeGates
from tests.kit.fakes.memory import FakeMemories
from tests.kit.waiting import until

AT = datetime(2026, 5, 8, tzinfo=UTC)
SECRET = "marmalade"


class Clock:
    """A clock that the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def row(
    name: str, owner: str = "a/ann", score: float = 0.5, text: str = SECRET, at: datetime = AT
) -> RecalledMemory:
    return RecalledMemory(name, owner, text, score, at, None)


@pytest.fixture
def memories() -> FakeMemories:
    return FakeMemories()


def recaller(
    memories: FakeMemories | None,
    budget: RecallBudget | None = None,
    *,
    clock: Clock | None = None,
    gates: FakeGates | None = None,
    **options: Any,
) -> Recaller:
    house = GateClient(cast("Gates", gates or FakeGates()), clock or Clock())
    options = {"limit": 5, "least_score": 0.0} | options
    return Recaller(memories, house, budget=budget or RecallBudget(5.0), **options)


async def names(asked: Recaller, query: str = "query") -> list[str] | None:
    recall = await asked.recall("a/ann", query)
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


async def test_rows_below_the_least_score_are_left_out(memories: FakeMemories) -> None:
    memories.plant("a/ann", row("good", score=0.5))
    memories.plant("a/ann", row("bad", score=0.49))

    assert await names(recaller(memories, least_score=0.5)) == ["good"]


@pytest.mark.parametrize(
    ("query", "kept"), [("Who am I?", ["good", "bad"]), ("Who is Rex?", ["good"])]
)
async def test_no_score_is_too_low_if_all_that_is_known_is_asked_for(
    memories: FakeMemories, query: str, kept: list[str]
) -> None:
    memories.plant("a/ann", row("good", score=0.5))
    memories.plant("a/ann", row("bad", score=0.1, text="Another fact."))

    assert await names(recaller(memories, least_score=0.5), query) == kept


async def test_no_more_rows_than_asked_for_are_taken(memories: FakeMemories) -> None:
    class Generous(FakeMemories):
        async def search(self, owner: str, query: str, limit: int) -> SearchResult:
            return SearchResult(tuple(row(f"m{n}", text=str(n)) for n in range(limit * 3)))

    assert await names(recaller(Generous(), limit=2)) == ["m0", "m1"]


async def test_repeats_and_what_equals_the_message_leave_their_places(
    memories: FakeMemories,
) -> None:
    class Echoing(FakeMemories):
        async def search(self, owner: str, query: str, limit: int) -> SearchResult:
            said = ("QUERY ", " I like  tea", "i LIKE tea", "I like tea.")
            found = (row(f"m{n}", text=text, at=AT + timedelta(n)) for n, text in enumerate(said))
            return SearchResult(tuple(found)[:limit])

    found = (await recaller(Echoing(), limit=2).recall("a/ann", "query")).memories
    assert found is not None
    assert [(memory.id, memory.times_said) for memory in found] == [("m2", 2), ("m3", 1)]


async def test_a_date_beside_a_word_hides_no_echo_and_parts_two_days() -> None:
    class Dated(FakeMemories):
        async def search(self, owner: str, query: str, limit: int) -> SearchResult:
            said = ("Exam tomorrow [2 May 2026]", "Gym today", "Rest tomorrow [3 May 2026]")
            return SearchResult(tuple(row(f"m{n}", text=text) for n, text in enumerate(said)))

    assert await names(recaller(Dated()), "exam tomorrow") == ["m1", "m2"]


@pytest.mark.parametrize("error", [Unavailable("down"), AccessDenied("revoked"), Rejected("bad")])
async def test_a_memory_that_fails_is_unavailable_and_raises_nothing(
    memories: FakeMemories, error: ProviderError, caplog: pytest.LogCaptureFixture
) -> None:
    memories.fail("search", error)

    assert await recaller(memories).recall("a/ann", SECRET) == Recall(None, code=error.code)
    assert error.code in caplog.text
    assert SECRET not in caplog.text


async def test_a_memory_that_hangs_costs_the_budget_and_no_more(memories: FakeMemories) -> None:
    memories.hang("search")
    async with asyncio.timeout(5):
        assert await names(recaller(memories, budget=RecallBudget(0.02))) is None


async def test_cancelling_the_caller_cancels_recall(memories: FakeMemories) -> None:
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
    asked = recaller(memories, gates=gates, budget=RecallBudget(0.02))
    memories.hang("search")

    assert await names(asked) is None
    await asked._gates.flush()
    assert [report.outcome for report in gates.told] == [CallOutcome.FAILED]


# -- a backlog


@pytest.mark.finding(33)
@pytest.mark.parametrize(
    ("waited_s", "budget_s"), [(-1.0, 0.4), (0.0, 0.4), (10.0, 1.4), (60.0, 6.4), (9e9, 15.4)]
)
def test_the_recall_budget_grows_with_the_time_a_job_has_waited(
    waited_s: float, budget_s: float
) -> None:
    assert RecallBudget(0.4, 0.1, 15.0).of(waited_s) == pytest.approx(budget_s)


@pytest.mark.finding(33)
async def test_a_job_that_has_waited_gets_its_memory_late_and_all_others_hear_of_it(
    memories: FakeMemories,
) -> None:
    gates = FakeGates()
    asked = recaller(memories, gates=gates, budget=RecallBudget(0.01, 1.0, 60.0))
    hang, loop = memories.hang("search"), asyncio.get_running_loop()
    memories.plant("a/ann", row("m1"))
    began = loop.time()
    work = asyncio.create_task(asked.recall("a/ann", "query", waited_s=60.0))
    await until(lambda: loop.time() > began + 0.02, "more than the budget is over")
    hang.released.set()

    assert [memory.id for memory in (await work).memories or ()] == ["m1"]
    await asked._gates.flush()
    assert (gates.late, gates.told) == (["recall"], [])


@pytest.mark.finding(33)
async def test_a_search_that_misses_while_others_work_is_no_failure_of_memory(
    memories: FakeMemories,
) -> None:
    gates = FakeGates()
    asked = recaller(memories, gates=gates, budget=RecallBudget(1.0))
    hang = memories.hang("search")
    late = asyncio.create_task(asked.recall("a/ann", "query"))
    await hang.reached.wait()
    assert await names(asked) == []

    assert await late == Recall(None, code="over_budget")
    await asked._gates.flush()
    assert gates.told == []


@pytest.mark.finding(33)
async def test_a_search_that_gets_no_turn_in_time_is_not_begun(
    memories: FakeMemories, caplog: pytest.LogCaptureFixture
) -> None:
    gates = FakeGates()
    asked = recaller(memories, gates=gates, budget=RecallBudget(0.02, 1.0, 60.0), at_once=1)
    hang = memories.hang("search")
    first = asyncio.create_task(asked.recall("a/ann", "query", waited_s=60.0))
    await hang.reached.wait()

    assert await names(asked) is None
    assert len(memories.calls) == 1
    assert "recall_queue" in caplog.text
    hang.released.set()
    await first
    await asked._gates.flush()
    assert gates.told == []


class Line:
    """A queue for one search at a time, and who got a turn in which order."""

    def __init__(self, size: int | None = 1) -> None:
        self.clock = Clock()
        self.queue = RecallQueue(size, self.clock)
        self.taken: list[str] = []
        self.over = asyncio.Event()
        self.works: list[asyncio.Task[None]] = []

    def come(
        self, name: str, deadline: float = 0.0, waited_s: float = 60.0, *, ahead: bool = False
    ) -> None:
        """Let a job come, be admitted, and hold its turn until all is over."""
        self.works.append(asyncio.create_task(self._come(name, deadline, waited_s, ahead=ahead)))

    async def _come(self, name: str, deadline: float, waited_s: float, *, ahead: bool) -> None:
        await self.queue.admit(name, ahead=ahead)
        later = asyncio.get_running_loop().time() + 20
        async with self.queue.turn(name, waited_s, deadline=deadline, give_up_at=later):
            self.taken.append(name)
            await self.over.wait()
        self.queue.leave(name)

    async def see(self, running: int, waiting: int, outside: int) -> None:
        """Wait until so many search, wait for a turn, and are not admitted."""
        queue = self.queue
        await until(
            lambda: (
                (queue._running, queue._waiting, len(queue._outside)) == (running, waiting, outside)
            ),
            "they have taken their places",
        )

    async def see_ahead(self, count: int) -> None:
        """Wait until so many that were taken ahead are not admitted."""
        await until(lambda: len(self.queue._outside_ahead) == count, "they have come")

    async def finish(self) -> list[str]:
        """Let all go on, and return who had a turn, in order."""
        self.over.set()
        await asyncio.gather(*self.works, return_exceptions=True)
        assert (self.queue._running, self.queue._waiting, self.queue._admitted) == (0, 0, set())
        return self.taken


@pytest.mark.finding(33)
async def test_the_job_with_the_earliest_deadline_is_next() -> None:
    line = Line()
    for place, deadline in enumerate((1.0, 9.0, 3.0, 5.0)):
        line.come(f"{deadline}", deadline, waited_s=0)
        await line.see(1, place, 0)

    assert await line.finish() == ["1.0", "3.0", "5.0", "9.0"]


@pytest.mark.finding(33)
async def test_a_backlog_is_claimed_no_faster_than_it_is_recalled() -> None:
    line = Line(2)
    for name in "abcdefgh":
        line.come(name)
    await line.see(2, 2, 4)
    line.works[0].cancel()
    await line.see(2, 2, 3)
    line.works[6].cancel()  # not admitted yet
    line.works[2].cancel()  # waits for its turn, or has it now

    assert set(await line.finish()) >= set("bdefh")


@pytest.mark.finding(33)
async def test_what_comes_after_a_backlog_is_admitted_by_turns_with_it() -> None:
    line = Line()
    for name in "abcd":
        line.come(name)
    await line.see(1, 1, 2)
    for place, name in enumerate("xyz", 1):
        line.come(name, waited_s=0, ahead=True)
        await line.see_ahead(place)
    assert line.queue.holds_back()

    assert await line.finish() == ["a", "b", "z", "c", "y", "d", "x"]
    assert not line.queue.holds_back()


@pytest.mark.finding(33)
async def test_what_was_taken_ahead_does_not_let_the_backlog_in() -> None:
    line = Line()
    line.come("a")
    await line.see(1, 0, 0)
    line.come("x", waited_s=0, ahead=True)
    await line.see(1, 1, 0)
    for name in "bc":
        line.come(name)

    await line.see(1, 1, 2)
    assert await line.finish() == ["a", "x", "b", "c"]


@pytest.mark.finding(33)
@pytest.mark.parametrize("size", [1, None])
async def test_jobs_that_have_just_come_are_not_held_back(size: int | None) -> None:
    line = Line(size)
    for name in "abcdefgh":
        line.come(name, waited_s=BACKLOG_S - 1)
    await until(lambda: not line.queue._admitted, "all recall")

    assert len(line.queue._outside) == 0
    assert len(await line.finish()) == 8


@pytest.mark.finding(33)
async def test_a_backlog_that_never_ends_is_held_back_for_a_time_only() -> None:
    line = Line()
    for name in "abc":
        line.come(name)
    await line.see(1, 1, 1)
    for _ in range(int(LONGEST_PACE_S / CALM_S) + 2):
        assert not line.queue.is_overloaded()
        line.clock.now += CALM_S - 1
        line.come("more")
        await until(lambda: line.queue._paced_at == line.clock.now, "it has come")
        if line.queue.is_overloaded():
            break
    assert line.queue.is_overloaded()
    outside = len(line.queue._outside)
    line.come("now")
    await line.see(1, 2, outside)
    line.clock.now += CALM_S
    assert not line.queue.is_overloaded()
    await line.finish()


@pytest.mark.finding(33)
async def test_a_job_that_does_not_recall_makes_way_for_the_next() -> None:
    line = Line()
    line.come("a")
    await line.see(1, 0, 0)
    await line.queue.admit("gone")
    line.come("b")
    await line.see(1, 0, 1)
    line.queue.leave("gone")
    await line.see(1, 1, 0)

    assert await line.finish() == ["a", "b"]


async def test_a_rejected_search_is_not_reported_to_the_gate(memories: FakeMemories) -> None:
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

    asked = recaller(memories, gates=Hanging(), budget=RecallBudget(0.02))
    asked._gates.receive("shut recall")
    async with asyncio.timeout(5):
        assert await names(asked) is None


# -- long messages

PASTE = "The minutes of the meeting were long. " * 200


@pytest.mark.parametrize("message", [f"{PASTE}\n\nIs it Otto?", f"Is it Otto?\n{PASTE}"])
async def test_of_a_long_message_both_ends_are_searched_for(
    memories: FakeMemories, message: str
) -> None:
    await recaller(memories, query_characters=200).recall("a/ann", message)

    asked = [call.about for call in memories.calls]
    assert len(asked) == 2
    assert all(len(about) <= 100 for about in asked)
    assert any("Is it Otto?" in about for about in asked)


async def test_a_short_message_is_one_search(memories: FakeMemories) -> None:
    await recaller(memories).recall("a/ann", "x" * QUERY_CHARACTERS)

    assert [len(call.about) for call in memories.calls] == [QUERY_CHARACTERS]


async def test_the_two_ends_take_turns_and_a_memory_of_both_has_its_best_score() -> None:
    class Ends(FakeMemories):
        async def search(self, owner: str, query: str, limit: int) -> SearchResult:
            scores = {"a": 0.3, "e": 0.2} if "end" in query else {"s": 0.9, "t": 0.8, "a": 0.1}
            found = (replace(row(name, score=scores[name]), text=name) for name in scores)
            return SearchResult(tuple(found), malformed=1)

    found = await recaller(Ends(), query_characters=100).recall("a/ann", "x " * 100 + "end")

    best = [(one.id, one.score) for one in found.memories or ()]
    assert best == [("s", 0.9), ("a", 0.3), ("t", 0.8), ("e", 0.2)]
    assert (found.found, found.lost) == (6, 2)


async def test_if_one_end_cannot_be_searched_the_other_is_given_up(memories: FakeMemories) -> None:
    memories.hang("search")
    memories.fail("search", Unavailable("down"))

    async with asyncio.timeout(5):
        assert await recaller(memories).recall("a/ann", PASTE) == Recall(None, code="down")
    await until(lambda: not others(), "nothing is left of the search that hung")


def others() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}
