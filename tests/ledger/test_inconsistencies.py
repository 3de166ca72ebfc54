"""The reconciler: it finds and fixes each planted inconsistency, and reports no other."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import pytest

from afterword.shared.errors import Fault
from afterword.shared.events import InconsistencyFixed
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.workers.background.reconciler import Reconciler
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.workers.observed import observed

pytestmark = pytest.mark.redis


async def gaps(ledger: Ledger, *, mend: bool = False) -> list[tuple[str, str]]:
    return [
        (gap.job_id, gap.problem) async for gap in ledger.maintenance.find_inconsistencies(fix=mend)
    ]


async def bury(ledger: Ledger, turn: str) -> None:
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn)
    await ledger.turns.bury(held, turn, "rejected", Fault.REQUEST, "1")
    await ledger.turns.release_lane(held)


async def test_no_state_that_the_scripts_lead_to_is_inconsistent(ledger: Ledger) -> None:
    await bury(ledger, await submit_and_answer(ledger, "dead"))
    stored = await submit_and_answer(ledger, "stored")
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, stored)
    await ledger.turns.settle(held, stored, TurnState.STORED)
    await ledger.turns.release_lane(held)
    await submit_job(ledger, "queued", user_id="bob")
    running = await submit_and_claim(ledger, "running", user_id="cy")
    await ledger.jobs.snooze(running, 60, counted=False)
    failed = await submit_and_claim(ledger, "failed", user_id="di")
    await ledger.jobs.fail(failed, "rejected")
    await submit_and_answer(ledger, "pending", user_id="ed")
    writing = await submit_and_answer(ledger, "writing", user_id="flo")
    await ledger.turns.begin(await claim_lane(ledger, lane_of("flo")), writing)
    for _ in range(3):
        await submit_job(ledger, "stands aside", user_id="hal", conversation_id="c")
    await submit_and_claim(ledger, "older", user_id="gus")
    await submit_and_answer(ledger, "waits for the older", user_id="gus")
    assert await gaps(ledger) == []


async def _queued(ledger: Ledger) -> str:
    return await submit_job(ledger)


async def _in_line(ledger: Ledger) -> str:
    return await submit_job(ledger, conversation_id="c")


async def _pending(ledger: Ledger) -> str:
    return await submit_and_answer(ledger)


async def _dead(ledger: Ledger) -> str:
    turn = await submit_and_answer(ledger)
    await bury(ledger, turn)
    return turn


async def _failed(ledger: Ledger) -> str:
    held = await submit_and_claim(ledger)
    await ledger.jobs.fail(held, "rejected")
    return held.job_id


PLANTED: list[
    tuple[str, Callable[[Ledger], Awaitable[str]], Callable[[LedgerInspector, str], object]]
] = [
    (
        "not_open",
        _queued,
        lambda inspector, job: inspector.redis.zrem(inspector.keys.open, job),
    ),
    (
        "not_placed",
        _queued,
        lambda inspector, job: inspector.redis.zrem(
            inspector.keys.place("hinted", "replies.3"), job
        ),
    ),
    (
        "not_awaited",
        _queued,
        lambda inspector, job: inspector.redis.zrem(inspector.keys.lane(lane_of()), job),
    ),
    (
        "not_in_conversation_queue",
        _in_line,
        lambda inspector, job: inspector.redis.zrem(
            inspector.keys.conversation_queue(inspector.job(job)["conversation"]), job
        ),
    ),
    (
        "not_in_lane",
        _pending,
        lambda inspector, job: inspector.redis.zrem(inspector.keys.lane(lane_of()), job),
    ),
    (
        "lane_not_placed",
        _pending,
        lambda inspector, _: inspector.redis.zrem(
            inspector.keys.place("hinted", "memories.0"), lane_of()
        ),
    ),
    (
        "not_listed",
        _dead,
        lambda inspector, job: inspector.redis.zrem(inspector.keys.dead_turns, job),
    ),
    (
        "never_came",
        _failed,
        lambda inspector, job: inspector.redis.hset(inspector.keys.job(job), "turn", "awaited"),
    ),
]


@pytest.mark.parametrize(("what", "make", "plant"), PLANTED, ids=[row[0] for row in PLANTED])
async def test_an_inconsistency_is_named_and_fixed(
    ledger: Ledger,
    inspector: LedgerInspector,
    what: str,
    make: Callable[[Ledger], Awaitable[str]],
    plant: Callable[[LedgerInspector, str], object],
) -> None:
    job_id = await make(ledger)
    plant(inspector, job_id)

    assert (job_id, what) in await gaps(ledger)
    assert (job_id, what) in await gaps(ledger), "only looking mends nothing"
    await gaps(ledger, mend=True)
    assert await gaps(ledger) == []


async def test_a_job_whose_inconsistency_was_fixed_is_processed(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id, turn = await submit_job(ledger, user_id="bob"), await submit_and_answer(ledger)
    inspector.redis.delete(
        inspector.keys.place("hinted", "replies.3"), inspector.keys.place("hinted", "memories.0")
    )
    inspector.drop_hints()
    await gaps(ledger, mend=True)
    assert inspector.hinted("replies.3") == [job_id]
    assert (await claim_job(ledger, job_id)).job_id == job_id
    assert (await claim_lane(ledger)).turns[0].id == turn


async def test_a_conversation_queue_is_fixed_in_its_order(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second, third = [await submit_job(ledger, conversation_id="c") for _ in range(3)]
    line = inspector.keys.conversation_queue(inspector.job(first)["conversation"])
    inspector.redis.zrem(line, first, second)
    await gaps(ledger, mend=True)
    assert inspector.redis.zrange(line, 0, -1) == [first, second, third]
    assert await ledger.jobs.claim(second, "too early") is None


async def test_the_reconciler_logs_no_content(
    ledger: Ledger, inspector: LedgerInspector, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = await submit_and_answer(ledger, "canary")
    inspector.redis.delete(inspector.keys.lane(lane_of()))
    with caplog.at_level(logging.ERROR), observed(InconsistencyFixed) as found:
        await Reconciler(ledger.maintenance, 60).reconcile()
    assert "inconsistency fixed: not_in_lane" in caplog.text
    assert [context.job_id for context in found.contexts(InconsistencyFixed)] == [job_id]
    assert "canary" not in caplog.text


async def test_one_worker_of_a_fleet_reconciles(ledger: Ledger) -> None:
    assert [await ledger.maintenance.claim_reconciliation(60_000) for _ in range(3)] == [
        True,
        False,
        False,
    ]


async def test_a_record_of_a_newer_version_is_left_alone(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    inspector.redis.hset(inspector.keys.job(job_id), "version", 99)
    inspector.redis.zrem(inspector.keys.open, job_id)
    assert await gaps(ledger) == []
