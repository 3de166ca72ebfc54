"""Sums of usage: each reply counts once, for its tenant and for its user."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import LeaseLost
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim, EraseClaim
from afterword.shared.settings import Settings
from afterword.shared.usage_contracts import UsageSum
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

COST = Usage(input=10, output=20, cache_read=3, cache_write=4)


async def finish(ledger: Ledger, claimed: Claim) -> None:
    reply = reply_to(claimed).model_copy(update={"usage": COST})
    await ledger.jobs.finish(claimed, reply)


async def test_every_reply_adds_to_the_sums_of_its_tenant_and_its_user(ledger: Ledger) -> None:
    for user, tenant in (("ann", "t"), ("ann", "t"), ("bob", "t"), ("ann", "u")):
        await finish(ledger, await submit_and_claim(ledger, user_id=user, tenant=tenant))

    thrice = Usage(input=30, output=60, cache_read=9, cache_write=12)
    twice = Usage(input=20, output=40, cache_read=6, cache_write=8)
    read = ledger.queries.usage
    assert await read("t", None) == UsageSum(tenant="t", replies=3, usage=thrice)
    assert await read("t", "ann") == UsageSum(tenant="t", user_id="ann", replies=2, usage=twice)
    assert await read("u", "ann") == UsageSum(tenant="u", user_id="ann", replies=1, usage=COST)


async def test_a_reply_given_twice_counts_once_and_one_that_comes_too_late_not_at_all(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    late = await submit_and_claim(ledger)
    inspector.make_due(late.job_id)
    held = await ledger.jobs.claim(late.job_id, "next")
    assert held is not None
    for _ in range(2):
        await finish(ledger, held)
    with pytest.raises(LeaseLost):
        await finish(ledger, late)

    assert (await ledger.queries.usage("default", None)).replies == 1
    assert (await ledger.queries.usage("default", "ann")).usage == COST


async def test_without_a_reply_and_without_a_count_nothing_was_spent(ledger: Ledger) -> None:
    await ledger.jobs.cancel(await submit_job(ledger))
    await ledger.jobs.fail(await submit_and_claim(ledger), "broken")
    assert await ledger.queries.usage("default", None) == UsageSum(tenant="default")


async def test_an_attempt_without_a_reply_counts_once(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger)
    for _ in range(2):
        await ledger.jobs.count_usage(held, COST)
    await ledger.jobs.snooze(held, 0, counted=True)

    again = await claim_job(ledger, held.job_id)
    await finish(ledger, again)
    await ledger.jobs.count_usage(again, COST)  # its reply has counted them

    for user in (None, "ann"):
        found = await ledger.queries.usage("default", user)
        assert (found.replies, found.usage) == (1, COST + COST)
    assert (await ledger.queries.status(held.job_id)).usage == COST + COST


async def test_what_earlier_models_of_an_attempt_used_counts_with_its_reply(ledger: Ledger) -> None:
    held = await submit_and_claim(ledger)
    reply = reply_to(held).model_copy(update={"usage": COST})
    await ledger.jobs.finish(held, reply, wasted=COST)

    assert (await ledger.queries.usage("default", None)).usage == COST + COST
    assert (await ledger.queries.status(held.job_id)).usage == COST + COST
    assert await ledger.queries.reply(held.job_id) == reply


async def test_a_cancelled_job_keeps_its_count_as_long_as_its_record(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = await submit_and_claim(ledger, remember=False)  # else it is kept until it is stored
    await ledger.jobs.cancel(held.job_id)
    await ledger.jobs.count_usage(held, COST)
    assert (await ledger.queries.status(held.job_id)).usage == COST
    assert inspector.redis.ttl(inspector.keys.job(held.job_id)) > 0
    assert 0 < inspector.redis.ttl(inspector.keys.usage(lane_of())) <= 90 * 24 * 3600

    inspector.redis.delete(inspector.keys.job(held.job_id))
    await ledger.jobs.count_usage(held, COST)
    assert not inspector.redis.exists(inspector.keys.job(held.job_id))
    assert (await ledger.queries.usage("default", None)).usage == COST


async def test_what_an_erased_user_used_counts_for_the_tenant_only(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = await submit_and_claim(ledger), await submit_and_claim(ledger)
    await ledger.erasures.begin(lane_of(), "an operator")
    await ledger.jobs.count_usage(first, COST)
    assert not inspector.redis.exists(inspector.keys.usage(lane_of()))
    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=20)
    assert isinstance(held, EraseClaim)
    await ledger.erasures.remove_records(held)
    await ledger.jobs.count_usage(second, COST)

    assert (await ledger.queries.usage("default", None)).usage == COST + COST
    assert not inspector.redis.exists(inspector.keys.usage(lane_of()))


async def test_a_tenant_named_like_a_lane_is_no_user(ledger: Ledger) -> None:
    await submit_and_answer(ledger)
    assert (await ledger.queries.usage(lane_of(), None)).replies == 0


async def test_a_users_sum_ends_some_time_after_the_last_reply_and_a_tenants_never(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    assert 0 < inspector.redis.ttl(inspector.keys.usage(lane_of())) <= 90 * 24 * 3600
    assert inspector.redis.ttl(inspector.keys.tenant_usage("default")) == -1


async def test_the_sum_of_a_tenant_is_that_of_all_shards(
    settings: Settings, inspector: LedgerInspector
) -> None:
    spread = settings.model_copy(update={"shards": 4})
    async with Ledger(spread, patience_s=5.0) as ledger:
        users = [f"user-{number}" for number in range(12)]
        jobs = [await submit_job(ledger, user_id=user) for user in users]
        for job_id in jobs:
            claimed = await ledger.jobs.claim(job_id, "t")
            assert claimed is not None
            await finish(ledger, claimed)
        assert len({job_id[:3] for job_id in jobs}) > 1
        assert (await ledger.queries.usage("default", None)).replies == 12
        for user in users:
            assert (await ledger.queries.usage("default", user)).replies == 1
