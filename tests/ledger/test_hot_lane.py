"""A lane with ten thousand turns: a claim costs what any other does, and others do not wait."""

from __future__ import annotations

from typing import Any

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector, claim_lane, lane_of, submit_and_answer
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter

pytestmark = pytest.mark.redis

HOT = 10_000
OTHERS = 40


def heat(inspector: LedgerInspector, turn_id: str, count: int) -> None:
    """Put so many copies of this turn behind it."""
    record = inspector.job(turn_id)
    pipeline: Any = inspector.redis.pipeline(transaction=False)
    for number in range(1, count):
        name, seq = f"{turn_id}x{number}", float(record["sequence"]) + number / count
        pipeline.hset(inspector.keys.job(name), mapping=record | {"sequence": seq})
        pipeline.zadd(inspector.keys.lane(record["lane"]), {name: seq})
    pipeline.execute()


def commands(inspector: LedgerInspector) -> int:
    """Return how many commands the server has executed, including those in scripts."""
    stats = inspector.redis.info("commandstats")
    return sum(int(one["calls"]) for one in stats.values())


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let eight turns go into one add."""
    return settings.model_copy(update={"coalesce_turns": 8})


async def test_others_are_stored_while_a_hot_lane_has_thousands_left(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    """One worker takes one hint at a time; the hot lane's came first."""
    desk = LaneWriter(settings, ledger, FailingMemories(takes_batches=True))
    heat(inspector, await submit_and_answer(ledger, "I talk a lot."), HOT)
    for number in range(OTHERS):
        await submit_and_answer(ledger, "I talk little.", user_id=f"user-{number}")

    taken = 0
    while any(inspector.lane(lane_of(f"user-{number}")) for number in range(OTHERS)):
        before = len(desk.memories.added)
        await desk.write(inspector.pop_hint("memories.0"))
        assert len(desk.memories.added) - before <= 3, "what one hint may cost those behind it"
        taken += 1

    assert taken <= OTHERS + 2
    assert len(inspector.lane(lane_of())) > HOT - 100
    assert inspector.hinted("memories.0") == [lane_of()], "it has its next go, behind all others"


async def test_a_claim_and_a_batch_cost_the_same_however_long_the_lane_is(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    costs = [await cost(ledger, inspector, f"user-{count}", count) for count in (20, HOT)]

    assert costs[1] <= costs[0] + 10


async def cost(ledger: Ledger, inspector: LedgerInspector, user: str, count: int) -> int:
    """Return the cost of claiming a lane of so many turns and settling one batch."""
    heat(inspector, await submit_and_answer(ledger, "I talk a lot.", user_id=user), count)
    before = commands(inspector)
    held = await claim_lane(ledger, lane_of(user))
    ids = [turn.id for turn in held.turns[:8]]
    await ledger.turns.begin(held, *ids)
    await ledger.turns.settle(held, ids[0], TurnState.STORED)
    await ledger.turns.release_lane(held)
    return commands(inspector) - before
