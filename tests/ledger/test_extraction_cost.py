"""What the extraction of facts costs: counted once, for the turn, its user and its tenant."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import Extraction, Usage
from afterword.shared.errors import BudgetSpent, Fault, LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.ledger.spending import ExtractionCost
from afterword.shared.ledger.story_records import StepKind
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_job,
)

pytestmark = pytest.mark.redis

FIRST = ExtractionCost(Usage(input=100, output=20, cache_read=3, cache_write=4), 350)
BOTH = ExtractionCost(Usage(input=150, output=25, cache_read=3, cache_write=4), 500)


async def begun(ledger: Ledger, *turns: str) -> LaneClaim:
    claim = await claim_lane(ledger)
    await ledger.turns.begin(claim, *turns)
    return claim


async def of(ledger: Ledger, turn: str) -> Extraction | None:
    return (await ledger.queries.status(turn)).extraction


async def test_what_an_attempt_paid_is_counted_once_with_the_step_that_settles_it(
    ledger: Ledger,
) -> None:
    turn = await submit_and_answer(ledger)
    before = await ledger.queries.usage("default", "ann")
    claim = await begun(ledger, turn)
    await ledger.turns.record_facts(claim, turn, "[]", paid=FIRST)
    for _ in range(2):  # as after a lost reply
        await ledger.turns.settle(claim, turn, TurnState.STORED, memory_ids=("m1", "m2"), paid=BOTH)

    paid = Extraction(usage=BOTH.usage, cost_usd=0.0005, facts=2, fact_usd=0.00025)
    assert await of(ledger, turn) == paid
    for user in ("ann", None):
        found = await ledger.queries.usage("default", user)
        assert found.extraction == paid
        assert found.cost_usd == pytest.approx(before.cost_usd + 0.0005)
        assert (found.replies, found.usage) == (before.replies, before.usage)


async def test_each_attempt_is_paid_also_one_that_fails(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    claim = await begun(ledger, turn)
    for _ in range(2):
        await ledger.turns.postpone(
            claim, turn, 0.0, counted=True, code="x", unknown_outcome=False, paid=FIRST
        )
    inspector.make_due(lane_of())
    claim = await begun(ledger, turn)
    await ledger.turns.bury(claim, turn, "x", Fault.REQUEST, "1", paid=FIRST)

    twice = FIRST.usage + FIRST.usage
    assert await of(ledger, turn) == Extraction(usage=twice, cost_usd=0.0007)
    assert (await ledger.queries.usage("default", None)).extraction.usage == twice


@pytest.mark.parametrize("swept", [True, False])
async def test_a_writer_that_lost_its_lane_is_counted_by_its_successor(
    ledger: Ledger, inspector: LedgerInspector, swept: bool
) -> None:
    """What it paid is not known, and it cannot tell any more: as much as its successor did."""
    turn = await submit_and_answer(ledger)
    late = await begun(ledger, turn)
    inspector.make_due(lane_of())
    if swept:
        await ledger.maintenance.sweep()
    held = await begun(ledger, turn)
    with pytest.raises(LeaseLost):
        await ledger.turns.settle(late, turn, TurnState.STORED, paid=FIRST)
    await ledger.turns.postpone(
        held, turn, 0.0, counted=True, code="x", unknown_outcome=False, paid=FIRST
    )
    assert await of(ledger, turn) == Extraction(usage=FIRST.usage + FIRST.usage, cost_usd=0.0007)

    inspector.make_due(lane_of())
    again = await begun(ledger, turn)
    await ledger.turns.settle(again, turn, TurnState.NOTHING, code="no_fact", paid=FIRST)

    thrice = FIRST.usage + FIRST.usage + FIRST.usage
    assert await of(ledger, turn) == Extraction(usage=thrice, cost_usd=0.00105)


async def test_facts_that_an_earlier_attempt_paid_for_are_counted_when_they_are_stored(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    claim = await begun(ledger, turn)
    await ledger.turns.record_facts(claim, turn, "[]", paid=FIRST)
    inspector.make_due(lane_of())
    claim = await begun(ledger, turn)
    await ledger.turns.settle(claim, turn, TurnState.STORED, memory_ids=("m",))

    assert await of(ledger, turn) == Extraction(
        usage=FIRST.usage, cost_usd=0.00035, facts=1, fact_usd=0.00035
    )


async def test_without_extraction_nothing_is_kept(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    claim = await begun(ledger, turn)
    await ledger.turns.settle(claim, turn, TurnState.STORED, memory_ids=("m",))

    assert await of(ledger, turn) is None
    assert not [name for name in inspector.job(turn) if name.startswith("extraction")]
    assert (await ledger.queries.usage("default", "ann")).extraction == Extraction()


async def test_turns_of_a_batch_are_paid_together_by_the_first(ledger: Ledger) -> None:
    turns = [await submit_and_answer(ledger) for _ in range(2)]
    claim = await begun(ledger, *turns)
    await ledger.turns.settle(claim, turns[0], TurnState.STORED, memory_ids=("m",), paid=FIRST)

    assert (await of(ledger, turns[0])) == Extraction(
        usage=FIRST.usage, cost_usd=0.00035, facts=1, fact_usd=0.00035
    )
    assert await of(ledger, turns[1]) is None


async def test_the_story_says_what_each_attempt_paid(ledger: Ledger) -> None:
    turn = await submit_and_answer(ledger)
    claim = await begun(ledger, turn)
    await ledger.turns.record_facts(claim, turn, "[]", paid=FIRST)
    await ledger.turns.settle(claim, turn, TurnState.STORED, memory_ids=("m",), paid=FIRST)

    story = await ledger.stories.of(turn)
    (step,) = [step for step in story.steps if step.kind is StepKind.EXTRACTED]
    assert step.details == {"input_tokens": 107, "output_tokens": 20, "cost_usd": 0.00035}
    assert story.extraction is not None
    assert story.extraction.facts == 1


async def test_extraction_counts_against_the_budget(
    settings: Settings, inspector: LedgerInspector
) -> None:
    limited = settings.model_copy(
        update={"budgets": {"*": {"user_usd": 0.0003}}, "budget_period": "day"}
    )
    async with Ledger(limited, patience_s=5.0) as ledger:
        turn = await submit_and_answer(ledger)
        claim = await begun(ledger, turn)
        await ledger.turns.record_facts(claim, turn, "[]", paid=FIRST)

        found = await ledger.queries.usage("default", "ann")
        assert found.period_cost_usd == pytest.approx(0.00035)
        with pytest.raises(BudgetSpent):
            await submit_job(ledger)
