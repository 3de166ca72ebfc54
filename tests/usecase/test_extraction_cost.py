"""What storing a turn pays for extraction: told by the call, kept with the turn."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import BadAnswer, Unavailable
from afterword.shared.events import ExtractionPaid
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.add_context import add_context
from afterword.workers.adapters.mem0.extraction import Extractor
from afterword.workers.ports import AddResult, Turn
from afterword.workers.rules.token_meter import TokenMeter
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.workers.observed import observed

pytestmark = pytest.mark.redis

USED = Usage(input=100, output=20)
FACTS = json.dumps({"memory": [{"text": "likes tea"}]})


@dataclass
class ExtractingMemories(FailingMemories):
    """A memory that asks a model for facts first, as mem0's open-source code does."""

    model: FakeModel

    def __post_init__(self) -> None:
        super().__init__()

    async def add(self, owner: str, turn: Turn) -> AddResult:
        extractor = Extractor(self.model, "m", asyncio.get_running_loop(), b"key")

        def extract() -> None:
            with add_context(owner, turn):
                extractor.generate_response([{"role": "user", "content": turn.user_text}])

        await asyncio.to_thread(extract)
        return await super().add(owner, turn)


@pytest.fixture
def memories() -> ExtractingMemories:
    return ExtractingMemories(FakeModel())


@pytest.fixture
def priced(settings: Settings) -> Settings:
    return settings.model_copy(update={"model_prices": {"m": (1000.0, 2000.0)}})


async def write(settings: Settings, memories: ExtractingMemories, ledger: Ledger) -> str:
    """Answer a message and try to store its turn, once; return its id."""
    turn = await submit_and_answer(ledger, "I like tea.")
    await LaneWriter(settings, ledger, memories).write()
    return turn


async def cost(ledger: Ledger, turn: str) -> tuple[Usage, float, int]:
    found = (await ledger.queries.status(turn)).extraction
    assert found is not None
    return found.usage, round(found.cost_usd, 6), found.facts


async def test_a_turn_that_is_stored_says_what_its_facts_cost(
    priced: Settings, ledger: Ledger, memories: ExtractingMemories
) -> None:
    memories.model.answers(FACTS, usage=USED)
    with observed(ExtractionPaid) as told:
        turn = await write(priced, memories, ledger)
        assert (await ledger.queries.status(turn)).turn is TurnState.STORED
        assert await cost(ledger, turn) == (USED, 0.14, 1)
    (event,) = told.of(ExtractionPaid)
    assert (event.model, event.input_tokens, event.output_tokens) == ("m", 100, 20)


@pytest.mark.parametrize("pins", [True, False])
async def test_a_call_that_fails_is_paid_as_far_as_it_was_told_and_the_next_one_as_well(
    priced: Settings, ledger: Ledger, memories: ExtractingMemories, inspector: LedgerInspector,
    *, pins: bool,
) -> None:  # fmt: skip
    pinned = priced.model_copy(update={"pin_extraction": pins})
    memories.model.fails(BadAnswer("truncated"), usage=USED)  # its output is not told
    memories.model.answers("no JSON", usage=USED)
    memories.model.answers(FACTS, usage=USED)
    turn = await write(pinned, memories, ledger)
    assert await cost(ledger, turn) == (Usage(input=100), 0.1, 0)
    for _ in range(2):
        inspector.make_due(lane_of())
        await LaneWriter(pinned, ledger, memories).write()
    assert await cost(ledger, turn) == (Usage(input=300, output=40), 0.38, 1)
    usage = await ledger.queries.usage("default", "ann")
    assert usage.extraction.cost_usd == pytest.approx(0.38)


async def test_facts_that_were_noted_are_not_paid_for_again(
    priced: Settings, ledger: Ledger, memories: ExtractingMemories, inspector: LedgerInspector
) -> None:
    memories.model.answers(FACTS, usage=USED)
    memories.fail("add", Unavailable("unreachable"))
    turn = await write(priced, memories, ledger)
    assert await cost(ledger, turn) == (USED, 0.14, 0)
    inspector.make_due(lane_of())
    await LaneWriter(priced, ledger, memories).write()
    assert await cost(ledger, turn) == (USED, 0.14, 1)
    assert len(memories.model.prompts) == 1


async def test_several_calls_of_one_add_are_paid_together(memories: ExtractingMemories) -> None:
    meter = TokenMeter()
    turn = Turn("t", "I like tea.", "", datetime(2026, 5, 8, tzinfo=UTC), meter=meter)
    for _ in range(2):
        memories.model.answers(FACTS, usage=USED)
        await memories.add("default:ann", turn)
    assert meter.unanswered == USED + USED
    assert [model for model, usage in meter.calls if usage != Usage()] == ["m", "m"]
