"""Storing what waits together: one add for several turns, and never one turn for another."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Literal

import pytest

from afterword.shared.errors import BadAnswer, ProviderError, Rejected, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import REMEMBER_GATE, memory_key
from afterword.shared.settings import Settings
from afterword.workers.background.deduplicator import Deduplicator
from afterword.workers.ports import AddResult, Exchange, Turn
from tests.kit.ledger.builder import LedgerInspector, claim_lane, lane_of, submit_and_answer
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
AT = datetime(2026, 5, 8, tzinfo=UTC)
POISON = "poison"


class Picky(FailingMemories):
    """A memory that fails at one message, alone or among others."""

    def __init__(self, error: ProviderError, polls: int = 0) -> None:
        super().__init__(polls=polls, takes_batches=True)
        self._error = error

    async def add(self, owner: str, turn: Turn) -> AddResult:
        if any(POISON in each.user_text for each in turn.exchanges):
            self.fail("add", self._error)
        return await super().add(owner, turn)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let eight turns go into one add."""
    return settings.model_copy(update={"coalesce_turns": 8})


@pytest.fixture
def memories() -> FailingMemories:
    return FailingMemories(takes_batches=True)


@pytest.fixture
def lane_writer(settings: Settings, ledger: Ledger, memories: FailingMemories) -> LaneWriter:
    return LaneWriter(settings, ledger, memories)


async def say(ledger: Ledger, *texts: str) -> list[str]:
    return [await submit_and_answer(ledger, text) for text in texts]


async def states(ledger: Ledger, ids: list[str]) -> list[TurnState]:
    return [(await ledger.queries.status(name)).turn for name in ids]


async def write_all(lane_writer: LaneWriter, inspector: LedgerInspector) -> None:
    """Let the lane be written until it is empty, whatever it would wait for."""
    for _ in range(50):
        if not inspector.lane(lane_of()):
            return
        inspector.make_due(lane_of())
        inspector.end_pause(REMEMBER_GATE)
        await lane_writer.write()
    raise AssertionError("the lane never ends")


def texts(lane_writer: LaneWriter) -> list[str]:
    return [row.text for row in lane_writer.memories.rows]


async def test_a_batch_is_added_once_under_the_id_and_time_of_its_oldest_turn(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    ids = await say(ledger, "a", "b", "c")

    await lane_writer.write()

    assert lane_writer.memories.added == [("a", "b", "c")]
    assert lane_writer.memories.turns(ANN) == ids[:1] * 3
    first = await ledger.queries.status(ids[0])
    assert {row.created_at for row in lane_writer.memories.rows} == {first.created_at}
    assert await states(ledger, ids) == [TurnState.STORED] * 3
    assert len({inspector.job(name)["memory_ids"] for name in ids}) == 1


async def test_a_setting_says_how_many_go_together(
    settings: Settings, ledger: Ledger, memories: FailingMemories
) -> None:
    lane_writer = LaneWriter(settings.model_copy(update={"coalesce_turns": 2}), ledger, memories)
    await say(ledger, "a", "b", "c")

    await lane_writer.write()

    assert memories.added == [("a", "b"), ("c",)]


async def test_a_memory_that_gains_nothing_by_it_is_given_one_at_a_time(
    settings: Settings, ledger: Ledger
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(takes_batches=False))
    await say(ledger, "a", "b")

    await lane_writer.write()

    assert lane_writer.memories.added == [("a",), ("b",)]


async def test_turns_of_several_conversations_bear_the_name_of_none(
    lane_writer: LaneWriter, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Turn] = []
    real = lane_writer.memories.add

    async def add(owner: str, turn: Turn) -> AddResult:
        seen.append(turn)
        return await real(owner, turn)

    monkeypatch.setattr(lane_writer.memories, "add", add)
    for talks in (["c", "c"], ["c", "d"]):
        for talk in talks:
            await submit_and_answer(ledger, "a", conversation_id=talk)
        await lane_writer.write()

    assert [turn.conversation_id for turn in seen] == ["c", None]


async def test_an_add_under_way_is_followed_for_the_whole_batch(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=2, takes_batches=True))
    ids = await say(ledger, "a", "b")
    await lane_writer.write()
    ids += await say(ledger, "c")

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b"), ("c",)]
    assert await states(ledger, ids) == [TurnState.STORED] * 3


@pytest.mark.parametrize("stored", [False, True])
async def test_after_an_unknown_outcome_the_same_turns_are_looked_for_and_added(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, *, stored: bool
) -> None:
    cut = Unavailable("cut", unknown_outcome=True)
    (lane_writer.memories.fail_after if stored else lane_writer.memories.fail)("add", cut)
    ids = await say(ledger, "a", "b")
    await lane_writer.write()
    ids += await say(ledger, "c")  # comes while they wait

    await write_all(lane_writer, inspector)

    again = [] if stored else [("a", "b")]
    assert lane_writer.memories.added == [("a", "b"), *again, ("c",)]
    assert texts(lane_writer) == ["a", "b", "c"]
    assert await states(ledger, ids) == [TurnState.STORED] * 3


async def test_an_outage_spends_no_attempt_and_takes_nothing_apart(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer.memories.fail("add", Unavailable("down"), times=30)
    await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b")] * 31
    assert texts(lane_writer) == ["a", "b"]


@pytest.mark.parametrize("stored", [False, True])
async def test_after_a_crash_a_batch_is_looked_for_and_if_it_is_not_there_taken_apart(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, *, stored: bool
) -> None:
    """A turn that its writers die of is to be found out as well."""
    first, other = await say(ledger, "a", "b")
    crashed = await claim_lane(ledger)
    await ledger.turns.begin(crashed, first, other)
    if stored:
        batch = Turn(first, "a", "", AT, followed_by=(Exchange("b", ""),))
        await lane_writer.memories.add(ANN, batch)

    await write_all(lane_writer, inspector)

    assert texts(lane_writer) == ["a", "b"]
    assert lane_writer.memories.added == ([("a", "b")] if stored else [("a",), ("b",)])
    assert await states(ledger, [first, other]) == [TurnState.STORED] * 2


async def test_a_stop_gives_the_batch_back_as_it_was(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector
) -> None:
    hang = lane_writer.memories.hang("add")
    await say(ledger, "a", "b")
    writing = asyncio.create_task(lane_writer.write())
    await hang.reached.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b")] * 2


@pytest.mark.parametrize(
    "error",
    [
        Rejected("too_large"),
        BadAnswer("garbled"),
        BadAnswer("bad_json", unknown_outcome=True),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
async def test_a_poison_turn_is_the_only_one_that_is_buried(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, error: ProviderError, place: int
) -> None:
    lane_writer = LaneWriter(settings, ledger, Picky(error))
    said = ["a", "b", "c"]
    said[place] = POISON
    ids = await say(ledger, *said)

    await write_all(lane_writer, inspector)

    expected = [TurnState.STORED] * 3
    expected[place] = TurnState.DEAD
    assert await states(ledger, ids) == expected
    assert texts(lane_writer) == [text for text in said if text != POISON], "in their order"
    assert lane_writer.memories.added[0] == tuple(said)
    assert all(len(added) == 1 for added in lane_writer.memories.added[1:])
    letter = await ledger.dead_letters.get(ids[place])
    spent = 1 if isinstance(error, Rejected) else settings.max_write_attempts
    assert (letter.code, letter.attempts) == (error.code, spent)


async def test_a_batch_whose_event_failed_is_looked_for_and_taken_apart(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1, takes_batches=True))
    lane_writer.memories.fail("follow", BadAnswer("event_failed"))
    ids = await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert lane_writer.calls[:3] == ["add", "follow", "find"]
    assert lane_writer.memories.added == [("a", "b"), ("a",), ("b",)]
    assert await states(ledger, ids) == [TurnState.STORED] * 2


async def test_memories_that_a_failed_event_stored_are_found_for_the_whole_batch(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=1, takes_batches=True))
    lane_writer.memories.fail_after("follow", BadAnswer("event_failed"))
    ids = await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b")]
    assert await states(ledger, ids) == [TurnState.STORED] * 2


@pytest.mark.parametrize("stored", [False, True])
async def test_a_batch_is_not_taken_apart_while_mem0_cannot_say_whether_it_has_it(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, *, stored: bool
) -> None:
    brief = settings.model_copy(update={"max_write_attempts": 3})
    lane_writer = LaneWriter(brief, ledger, FailingMemories(takes_batches=True))
    cut = Unavailable("cut", unknown_outcome=True)
    (lane_writer.memories.fail_after if stored else lane_writer.memories.fail)("add", cut)
    lane_writer.memories.fail("find", BadAnswer("bad_json"), times=9)
    ids = await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b"), *([] if stored else [("a",), ("b",)])]
    assert texts(lane_writer) == ["a", "b"]
    assert await states(ledger, ids) == [TurnState.STORED] * 2


@pytest.mark.parametrize("look", ["follow", "find"])
async def test_a_refused_look_for_a_batch_says_nothing_of_its_add(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, look: Literal["follow", "find"]
) -> None:
    """Taken apart by the word of a look, each of its turns would be stored again."""
    polls = int(look == "follow")
    lane_writer = LaneWriter(settings, ledger, FailingMemories(polls=polls, takes_batches=True))
    if look == "find":
        lane_writer.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
        lane_writer.memories.fail("find", Rejected("invalid_request"), times=3)
    else:
        lane_writer.memories.fail_after("follow", Rejected("invalid_request"))
    ids = await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a", "b")]
    assert texts(lane_writer) == ["a", "b"]
    assert await states(ledger, ids) == [TurnState.STORED] * 2


@pytest.mark.parametrize("attempts", [1, 2])
async def test_however_few_attempts_are_allowed_a_batch_that_always_fails_comes_to_an_end(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, attempts: int
) -> None:
    brief = settings.model_copy(update={"max_write_attempts": attempts})
    lane_writer = LaneWriter(brief, ledger, Picky(BadAnswer("bad_json", unknown_outcome=True)))
    ids = await say(ledger, POISON, "b")

    await write_all(lane_writer, inspector)

    assert texts(lane_writer) == ["b"]
    assert await states(ledger, ids) == [TurnState.DEAD, TurnState.STORED]


async def test_a_batch_whose_writers_die_of_asking_for_it_is_taken_apart(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    brief = settings.model_copy(update={"max_write_attempts": 3})
    lane_writer = LaneWriter(brief, ledger, FailingMemories(takes_batches=True))
    first, other = await say(ledger, "a", "b")
    for _ in range(3):
        inspector.make_due(lane_of())
        await ledger.turns.begin(await claim_lane(ledger), first, other)

    await write_all(lane_writer, inspector)

    assert lane_writer.memories.added == [("a",), ("b",)]
    assert await states(ledger, [first, other]) == [TurnState.STORED] * 2
    assert inspector.repairs() == [first], "what the batch may have left is looked for"


async def test_facts_of_a_batch_are_not_taken_for_those_of_one_of_its_turns(
    lane_writer: LaneWriter,
    ledger: Ledger,
    inspector: LedgerInspector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned: list[str] = []
    real = lane_writer.memories.add

    async def add(owner: str, turn: Turn) -> AddResult:
        pinned.append(turn.facts)
        assert turn.note_facts is not None
        await turn.note_facts(",".join(each.user_text for each in turn.exchanges))
        return await real(owner, turn)

    monkeypatch.setattr(lane_writer.memories, "add", add)
    lane_writer.memories.fail("add", Unavailable("down"))
    lane_writer.memories.fail("add", Rejected("too_large"))
    await say(ledger, "a", "b")

    await write_all(lane_writer, inspector)

    assert pinned == ["", "a,b", "", ""]


async def test_a_writer_that_was_paused_and_adds_a_batch_late_leaves_no_double(
    lane_writer: LaneWriter, ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    """The batch was looked for, taken apart and stored turn by turn meanwhile."""
    late = lane_writer.memories.hang("add")
    ids = await say(ledger, "a", "b")
    paused = LaneWriter(settings, ledger, lane_writer.memories)
    writing = asyncio.create_task(paused.write())
    await late.reached.wait()
    await write_all(lane_writer, inspector)
    late.released.set()
    await writing
    assert sorted(texts(lane_writer)) == ["a", "a", "b", "b"]

    inspector.make_repairs_due()
    timeout_s = settings.write_timeout_s
    deduplicator = Deduplicator(ledger.duplicate_checks, lane_writer.memories, timeout_s)
    await deduplicator.check_due_turns()

    assert texts(lane_writer) == ["a", "b"]
    assert lane_writer.memories.turns(ANN) == ids
