"""The repair: what two writers stored of one turn is taken back to one, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from afterword.shared.errors import Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import LaneClaim
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.background.deduplicator import Deduplicator
from afterword.workers.ports import Turn
from tests.kit.fakes.memory import FakeMemories
from tests.kit.ledger.builder import LedgerInspector, claim_lane, lane_of, submit_and_answer

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
AT = datetime(2026, 5, 8, tzinfo=UTC)


class Shop:
    """A deduplicator before a fake memory, on a real ledger."""

    def __init__(self, settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.memories = FakeMemories()
        self.ledger = ledger
        self.inspector = inspector
        self._deduplicator = Deduplicator(
            ledger.duplicate_checks, self.memories, settings.write_timeout_s
        )

    async def add(self, turn_id: str, attempt: str) -> Sequence[str]:
        """Store a turn as one attempt does."""
        turn = Turn(turn_id, "I prefer Celsius.", "Noted.", AT, attempt=attempt)
        return (await self.memories.add(ANN, turn)).memory_ids

    async def stored(self, *, writers: int = 2, ids: Sequence[str] = ()) -> str:
        """Settle a turn as stored, after so many writers took it up; return its id."""
        turn_id = await submit_and_answer(self.ledger, "I prefer Celsius.")
        held = await self._begun(turn_id)
        for _ in range(writers - 1):
            held = await self._begun(turn_id)
        await self.ledger.turns.settle(held, turn_id, TurnState.STORED, memory_ids=ids)
        await self.ledger.turns.release_lane(held)
        return turn_id

    async def _begun(self, turn_id: str) -> LaneClaim:
        self.inspector.make_due(lane_of())
        held = await claim_lane(self.ledger)
        await self.ledger.turns.begin(held, turn_id)
        return held

    async def repair(self) -> None:
        """Let all that will ever be due be due, and repair it."""
        self.inspector.make_repairs_due()
        await self._deduplicator.check_due_turns()


@pytest.fixture
def shop(settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> Shop:
    return Shop(settings, ledger, inspector)


async def test_of_two_copies_the_one_on_record_is_kept(shop: Shop) -> None:
    turn_id = await shop.stored(ids=["memory-2"])
    for attempt in "ab":
        await shop.add(turn_id, attempt)
    other = await shop.add("another-turn", "c")

    await shop.repair()

    assert [row.id for row in shop.memories.rows] == ["memory-2", *other]
    assert shop.inspector.repairs() == []
    assert shop.inspector.job(turn_id)["memory_ids"] == '["memory-2"]'


async def test_all_that_one_attempt_stored_is_kept(shop: Shop) -> None:
    turn_id = await shop.stored(ids=["memory-1"])
    for attempt in "aab":
        await shop.add(turn_id, attempt)

    await shop.repair()

    assert [row.id for row in shop.memories.rows] == ["memory-1", "memory-2"]


async def test_copies_that_nobody_recorded_are_one_in_the_end_and_on_record(shop: Shop) -> None:
    turn_id = await shop.stored(ids=["merged-away"])
    for attempt in "ab":
        await shop.add(turn_id, attempt)

    await shop.repair()

    (row,) = shop.memories.rows
    assert shop.inspector.job(turn_id)["memory_ids"] == f'["{row.id}"]'


async def test_a_deleted_memory_is_not_restored(shop: Shop) -> None:
    turn_id = await shop.stored(ids=["memory-1"])

    await shop.repair()

    assert shop.inspector.repairs() == []
    assert shop.inspector.job(turn_id)["memory_ids"] == '["memory-1"]'


async def test_a_turn_with_one_writer_is_never_looked_at(shop: Shop) -> None:
    await shop.stored(writers=1)
    assert shop.inspector.repairs() == []


async def test_nothing_is_looked_at_before_its_time(shop: Shop, settings: Settings) -> None:
    await shop.stored()
    (waits,) = [score for _, score in shop.inspector.redis.zrange(
        shop.inspector.keys.duplicate_checks, 0, -1, withscores=True
    )]  # fmt: skip
    now_s, _ = shop.inspector.redis.time()
    assert now_s + settings.repair_s - 10 <= waits / 1000 <= now_s + settings.repair_s + 10
    assert list(await shop.ledger.duplicate_checks.due()) == []


async def test_the_record_outlives_the_wait_for_its_repair(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    hasty = settings.model_copy(update={"retention_s": 1.0, "repair_s": 60.0})
    async with Ledger(hasty, patience_s=5.0) as brief:
        turn_id = await Shop(hasty, brief, inspector).stored()
    assert inspector.redis.pttl(inspector.keys.job(turn_id)) > 60_000


async def test_mem0_being_down_puts_a_repair_off_and_no_other(shop: Shop) -> None:
    first, second = [await shop.stored(ids=["memory-1"]) for _ in range(2)]
    shop.memories.fail("copies", Unavailable("down"))

    await shop.repair()

    (left,) = shop.inspector.repairs()
    assert left in (first, second)
    assert list(await shop.ledger.duplicate_checks.due()) == [], "it comes back later"
    await shop.repair()
    assert shop.inspector.repairs() == []


async def test_a_record_that_is_gone_is_not_looked_for(shop: Shop) -> None:
    turn_id = await shop.stored()
    shop.inspector.redis.delete(shop.inspector.keys.job(turn_id))

    await shop.repair()

    assert shop.memories.calls == []
    assert shop.inspector.repairs() == []


async def test_a_repair_that_is_done_makes_no_record_anew(shop: Shop) -> None:
    turn_id = await shop.stored()
    shop.inspector.redis.delete(shop.inspector.keys.job(turn_id))
    await shop.ledger.duplicate_checks.finish(turn_id, ["memory-1"])
    assert shop.inspector.job(turn_id) == {}
