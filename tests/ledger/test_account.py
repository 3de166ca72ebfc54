"""The account: every turn in one state, and how far a user's memory lags behind."""

from __future__ import annotations

import pytest

from afterword.producer.admin.fleet_status import summary
from afterword.shared.errors import Fault
from afterword.shared.ledger.account import total
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Account, UnrecognisedMessage
from afterword.shared.lifecycle import JobState, TurnState
from benchmarks.guard import count_calls_of
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    replay_one,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

LATE_S = 60.0


async def accounts(ledger: Ledger) -> dict[str, Account]:
    return {one.tenant: one for one in await ledger.accounts.by_tenant(late_s=LATE_S)}


def age(inspector: LedgerInspector, tenant: str, lane: str, seconds: float) -> None:
    """Make the oldest turn of a lane older."""
    inspector.redis.zincrby(inspector.keys.behind(tenant), -seconds * 1000, lane)


async def test_every_job_and_turn_is_counted_under_its_tenant_in_one_state(ledger: Ledger) -> None:
    await submit_and_answer(ledger, tenant="b")
    await submit_and_claim(ledger, tenant="a")
    await submit_job(ledger, tenant="a")
    found = await accounts(ledger)
    assert found["a"].jobs == dict.fromkeys(JobState, 0) | {JobState.QUEUED: 1, JobState.RUNNING: 1}
    assert found["a"].turns == dict.fromkeys(TurnState, 0) | {TurnState.AWAITED: 2}
    assert found["b"].jobs[JobState.SUCCEEDED] == found["b"].turns[TurnState.PENDING] == 1


@pytest.mark.finding(33)
async def test_replies_without_memory_are_counted(ledger: Ledger) -> None:
    for memory in ("degraded", "fresh", "overlay", "degraded", "off"):
        claim = await submit_and_claim(ledger, tenant="a:b")
        for _ in range(2):
            reply = reply_to(claim).model_copy(update={"memory": memory})
            await ledger.jobs.finish(claim, reply)
    found = await accounts(ledger)

    assert found["a:b"].degraded_replies == total(found.values()).degraded_replies == 2
    assert summary(await ledger.maintenance.overview())["degraded_replies"] == 2


async def test_turns_without_facts_are_counted_once_and_say_so(ledger: Ledger) -> None:
    turns = [await submit_and_answer(ledger, f"fact {n}", tenant="a:b") for n in range(4)]
    held = await claim_lane(ledger, lane_of(tenant="a:b"))
    for batch, state, code in (
        (turns[:2], TurnState.NOTHING, "no_fact"),
        (turns[2:3], TurnState.NOTHING, "known_facts"),
        (turns[3:], TurnState.STORED, ""),
    ):
        await ledger.turns.begin(held, *batch)
        for _ in range(2):
            await ledger.turns.settle(held, batch[0], state, code=code)
    found = await accounts(ledger)

    assert found["a:b"].turns_without_facts == total(found.values()).turns_without_facts == 2
    assert summary(await ledger.maintenance.overview())["turns_without_facts"] == 2
    codes = [(await ledger.queries.status(turn)).turn_code for turn in turns]
    assert codes == ["no_fact", "no_fact", "known_facts", None]


async def test_a_tenant_whose_name_holds_colons_is_told_from_others(ledger: Ledger) -> None:
    await submit_and_answer(ledger, tenant="a:b")
    await submit_and_answer(ledger, tenant="b")
    found = await accounts(ledger)
    assert found.keys() == {"a:b", "b"}
    assert [one.users_behind for one in found.values()] == [1, 1]


@pytest.mark.finding(28)
async def test_nothing_but_a_tenant_has_an_account(ledger: Ledger) -> None:
    await submit_job(ledger, tenant="a")
    for queue in ("replies", "memories", "control", "a:b"):
        await ledger.quarantine.add(UnrecognisedMessage(queue, "not_a_hint", 1, "0" * 64))
    assert (await accounts(ledger)).keys() == {"a"}
    assert await ledger.quarantine.counts() == {"not_a_hint": 4}


async def test_status_counts_the_jobs_of_every_tenant(ledger: Ledger) -> None:
    for tenant in ("a", "a:b", "job:queued:c"):
        await submit_job(ledger, tenant=tenant)
    assert summary(await ledger.maintenance.overview())["jobs"]["queued"] == 3


async def test_a_user_is_behind_until_the_last_turn_is_settled(ledger: Ledger) -> None:
    turns = [await submit_and_answer(ledger, f"fact {n}") for n in range(2)]
    assert (await accounts(ledger))["default"].users_behind == 1
    held = await claim_lane(ledger)
    for turn, behind in zip(turns, (1, 0), strict=True):
        await ledger.turns.begin(held, turn)
        await ledger.turns.settle(held, turn, TurnState.STORED)
        assert (await accounts(ledger))["default"].users_behind == behind


async def test_a_job_that_is_not_answered_yet_makes_nobody_late(ledger: Ledger) -> None:
    await submit_and_claim(ledger)
    assert (await accounts(ledger))["default"].users_behind == 0


async def test_a_user_is_late_by_the_oldest_turn_that_waits(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger, user_id="ann")
    await submit_and_answer(ledger, user_id="bob")
    age(inspector, "default", lane_of("bob"), 100)
    found = (await accounts(ledger))["default"]
    assert (found.users_behind, found.users_late) == (2, 1)
    assert 100 <= found.oldest_s < 110


async def test_a_later_turn_makes_nobody_less_late(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    age(inspector, "default", lane_of(), 100)
    await submit_and_answer(ledger, "more")
    assert (await accounts(ledger))["default"].users_late == 1


async def test_a_dead_letter_is_counted_as_dead_and_not_as_behind(ledger: Ledger) -> None:
    turn = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn)
    await ledger.turns.bury(held, turn, "rejected", Fault.REQUEST, "1")
    found = (await accounts(ledger))["default"]
    assert (found.turns[TurnState.DEAD], found.users_behind) == (1, 0)


async def test_a_replayed_turn_is_behind_by_its_own_age(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    turn = await submit_and_answer(ledger)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn)
    await ledger.turns.bury(held, turn, "rejected", Fault.REQUEST, "1")
    await ledger.turns.release_lane(held)
    inspector.redis.hincrby(inspector.keys.job(turn), "created", -100_000)
    await replay_one(ledger, turn)
    assert (await accounts(ledger))["default"].users_late == 1


async def test_the_total_is_the_sum_of_all(ledger: Ledger, inspector: LedgerInspector) -> None:
    await submit_and_answer(ledger, tenant="a")
    await submit_and_answer(ledger, tenant="b")
    age(inspector, "b", lane_of(tenant="b"), 100)
    found = total(await ledger.accounts.by_tenant(late_s=LATE_S))
    assert (found.tenant, found.users_behind, found.users_late) == ("", 2, 1)
    assert found.turns[TurnState.PENDING] == 2
    assert found.oldest_s >= 100


async def test_what_each_tenant_costs_does_not_grow_with_their_number(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    """Counted in calls of functions: each account was once searched for in all counts."""

    async def calls_with(tenants: int) -> int:
        counts = {f"job:succeeded:tenant-{number}": 1 for number in range(tenants)}
        inspector.redis.hset(inspector.keys.counts, mapping=counts)
        return await count_calls_of(lambda: ledger.accounts.by_tenant(late_s=LATE_S))

    few, many = await calls_with(200), await calls_with(800)
    assert many < 6 * few
