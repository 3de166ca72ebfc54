"""The pause of a migration: it is over when the migration is, and no operator's is touched."""

from __future__ import annotations

from datetime import timedelta

import pytest

from afterword.producer.admin.async_steering import AsyncSteering
from afterword.producer.admin.migration_pause import PAUSE_S, REASON, MigrationPause
from afterword.producer.checked_ledger import CheckedLedger
from afterword.shared.ledger.ledger import Ledger
from tests.kit.ledger.builder import claim_lane, submit_and_answer
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

#: Why memories are paused.
OURS = f"{REASON} m1"


class Stage:
    """A pause beside an operator, and a clock that only a sleep moves."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.at, self.looks = 0.0, 0
        checked = CheckedLedger(ledger)
        self.operator = AsyncSteering(lambda: checked, "ops")
        self.checked = checked
        self.pause = self.another()

    def another(self, name: str = "m1") -> MigrationPause:
        """Return the pause of another process, at the same migration or at another one."""
        return MigrationPause(self.checked, "mover", name, now=lambda: self.at, sleep=self.sleep)

    async def sleep(self, seconds: float) -> None:
        self.at += seconds

    async def look(self) -> None:
        self.looks += 1

    async def reasons(self) -> list[str]:
        return [order.reason for order in await self.ledger.orders.in_force()]

    async def audited(self) -> list[tuple[str, str]]:
        entries = await self.ledger.replay_runs.audit_entries(100)
        return [(entry.by, entry.action) for entry in reversed(entries)]


@pytest.fixture
async def stage(ledger: Ledger) -> Stage:
    return Stage(ledger)


async def test_memories_are_paused_for_a_while_and_resumed(stage: Stage) -> None:
    await stage.pause.begin(stage.look)
    await stage.pause.begin(stage.look)

    (order,) = await stage.ledger.orders.in_force()
    assert (order.kind, order.scope, order.reason) == ("pause-memories", "everyone", OURS)
    assert order.until is not None
    assert order.until - order.since == timedelta(seconds=PAUSE_S), "if the process is killed"
    await stage.pause.end()
    assert await stage.reasons() == []
    assert await stage.audited() == [("mover", "pause"), ("mover", "resume")]


async def test_a_write_that_has_begun_is_waited_for(stage: Stage) -> None:
    await submit_and_answer(stage.ledger)
    claimed = await claim_lane(stage.ledger)

    async def look() -> None:
        await stage.look()
        if stage.looks == 3:
            await stage.ledger.turns.release_lane(claimed)

    await stage.pause.begin(look)

    assert stage.looks == 3


async def test_a_write_that_never_ends_is_not_waited_for_for_ever(stage: Stage) -> None:
    await submit_and_answer(stage.ledger)
    await claim_lane(stage.ledger)

    await stage.pause.begin(stage.look)

    assert await stage.reasons() == [OURS]


async def test_a_long_pause_is_given_again_before_its_end(stage: Stage) -> None:
    await stage.pause.begin(stage.look)
    await stage.pause.extend()
    assert await stage.audited() == [("mover", "pause")]
    stage.at += PAUSE_S / 3

    await stage.pause.extend()

    assert await stage.audited() == [("mover", "pause")] * 2
    assert await stage.reasons() == [OURS]


async def test_a_pause_that_an_operator_gave_stays_theirs(stage: Stage) -> None:
    await stage.operator.pause("memories", reason="mine")

    await stage.pause.begin(stage.look)
    stage.at += PAUSE_S
    await stage.pause.extend()
    await stage.pause.end()

    assert await stage.reasons() == ["mine"]
    assert await stage.audited() == [("ops", "pause")]


async def test_a_pause_that_an_operator_gives_meanwhile_is_not_lifted(stage: Stage) -> None:
    await stage.pause.begin(stage.look)
    await stage.operator.pause("memories", reason="mine")

    await stage.pause.end()

    assert await stage.reasons() == ["mine"]


async def test_a_pause_that_an_operator_lifted_is_not_given_again(stage: Stage) -> None:
    await stage.pause.begin(stage.look)
    await stage.operator.resume("memories")
    stage.at += PAUSE_S

    await stage.pause.extend()

    assert await stage.reasons() == []


async def test_what_a_killed_migration_left_is_taken_over_and_lifted(stage: Stage) -> None:
    await stage.pause.begin(stage.look)

    after = stage.another()
    await after.begin(stage.look)
    await after.end()

    assert await stage.reasons() == []


async def test_a_migration_waits_for_the_pause_of_another_one(stage: Stage) -> None:
    other = stage.another("m2")
    await other.begin(stage.look)
    reasons = []

    async def look() -> None:
        await stage.look()
        reasons.append(await stage.reasons())
        if stage.looks == 3:
            await other.end()

    await stage.pause.begin(look)

    assert reasons == [[f"{REASON} m2"]] * 3
    assert await stage.reasons() == [OURS]
    await other.end()
    assert await stage.reasons() == [OURS]
    await stage.pause.end()
    assert await stage.reasons() == []


async def test_the_pause_of_who_took_the_migration_over_is_theirs(stage: Stage) -> None:
    await stage.pause.begin(stage.look)
    (order,) = await stage.ledger.orders.in_force()

    async def is_later() -> bool:
        return await stage.ledger.dead_letters.redis_time() > order.since

    await until(is_later, "an order can be told from this one")
    await stage.another().begin(stage.look)
    stage.at += PAUSE_S

    await stage.pause.extend()
    await stage.pause.end()

    assert await stage.audited() == [("mover", "pause")] * 2
    assert await stage.reasons() == [OURS]


async def test_a_pause_of_one_tenant_is_no_pause_of_all(stage: Stage) -> None:
    await stage.operator.pause("memories", tenant="acme", reason="mine")

    await stage.pause.begin(stage.look)
    assert await stage.reasons() == ["mine", OURS]
    await stage.pause.end()

    assert await stage.reasons() == ["mine"]
