"""Caps on what a tenant or a user runs at the same time: the rest waits, and does not spin."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from afterword.shared.ledger.cap_parts import parts_of
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim
from afterword.shared.lifecycle import JobState
from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from afterword.workers.background.sweeper import sweep
from tests.kit.ledger.builder import LedgerInspector, reply_to
from tests.ledger.test_fair_shares import NORMAL, Worker, submit, weigh

pytestmark = pytest.mark.redis


@pytest.fixture
async def capped(settings: Settings) -> AsyncIterator[Ledger]:
    caps = {"max_running_per_tenant": 2, "max_running_per_user": 1}
    async with Ledger(settings.model_copy(update=caps), patience_s=5.0) as ledger:
        yield ledger


@pytest.fixture
def worker(capped: Ledger, inspector: LedgerInspector) -> Worker:
    return Worker(capped, inspector)


async def take_all(worker: Worker) -> list[Claim]:
    """Take every hint that there is; return what was claimed for them."""
    claims = []
    while worker.inspector.hinted(NORMAL):
        if (claim := await worker.take()) is not None:
            claims.append(claim)
    return claims


async def test_a_tenant_runs_as_many_as_it_may_and_the_rest_waits_without_hints(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ids = await submit(capped, "acme", 6)

    running = await take_all(worker)

    assert [claim.job_id for claim in running] == ids[:2]
    assert {place for job_id in ids[2:] for place, _ in inspector.places(job_id)} == {"waiting"}
    for _ in range(3):
        inspector.redis.zadd(inspector.keys.at_cap, {":acme": 0})
        await capped.maintenance.sweep()
        await capped.maintenance.sweep()
        assert inspector.hinted(NORMAL) == ids[2:3], "one looks again, for all of them"
        assert await take_all(worker) == []


async def test_the_end_of_each_job_lets_one_more_in_until_all_are_answered(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ids = await submit(capped, "acme", 6)
    order = []
    running = await take_all(worker)
    while running:
        claim = running.pop(0)
        order.append(claim.job_id)
        await worker.answer(claim)
        running += await take_all(worker)
        assert len(running) <= 2

    assert order == ids
    assert not inspector.redis.exists(inspector.keys.at_cap)
    assert not inspector.redis.keys(f"{inspector.keys.root}:capped:*")


@pytest.mark.parametrize("end", ["fail", "snooze", "cancel", "lease"])
async def test_every_way_to_stop_running_lets_one_more_in(
    capped: Ledger, worker: Worker, inspector: LedgerInspector, end: str
) -> None:
    ids = await submit(capped, "acme", 4)
    first, _ = await take_all(worker)

    if end == "fail":
        await capped.jobs.fail(first, "rejected")
    elif end == "snooze":
        await capped.jobs.snooze(first, 60, counted=False)
    elif end == "cancel":
        await capped.jobs.cancel(first.job_id)
    else:
        inspector.make_due(first.job_id)
        await capped.maintenance.sweep()

    assert [claim.job_id for claim in await take_all(worker)] == ids[2:3]


async def test_a_tenant_at_its_cap_is_passed_over(capped: Ledger, worker: Worker) -> None:
    await submit(capped, "acme", 10)
    zeta = await submit(capped, "zeta", 2)

    running = await take_all(worker)

    assert len(running) == 4
    assert {claim.job_id for claim in running} >= set(zeta)


async def test_a_user_at_their_cap_is_passed_over_and_others_of_the_tenant_are_not(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ann = await submit(capped, "acme", 3, user_id="ann")
    (bob,) = await submit(capped, "acme", user_id="bob")

    running = await take_all(worker)
    assert [claim.job_id for claim in running] == [ann[0], bob]
    await worker.answer(running[0])
    (then,) = await take_all(worker)
    assert then.job_id == ann[1]
    await worker.answer(running[1])
    assert await take_all(worker) == [], "ann runs all she may"
    await worker.answer(then)
    (last,) = await take_all(worker)
    await worker.answer(last)
    assert {inspector.job(job_id)["state"] for job_id in [*ann, bob]} == {JobState.SUCCEEDED}


async def test_an_order_of_an_operator_comes_before_the_settings(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    weigh(inspector, "acme", most_running=4, most_running_per_user=0)
    await submit(capped, "acme", 6, user_id="ann")

    assert len(await take_all(worker)) == 4


async def test_what_was_parked_runs_when_the_cap_is_lifted(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await submit(capped, "acme", 8)
    running = await take_all(worker)
    weigh(inspector, "acme", most_running=0, most_running_per_user=0)

    inspector.redis.zadd(inspector.keys.at_cap, {":acme": 0})
    await capped.maintenance.sweep()
    running += await take_all(worker)

    assert len(running) == 8


async def test_jobs_that_a_worker_of_an_older_version_ended_block_nobody(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """It lets nobody in, and leaves the user's running jobs as they were."""
    ann = await submit(capped, "acme", 2, user_id="ann")
    (claim,) = await take_all(worker)
    at_cap = inspector.redis.zrange(inspector.keys.at_cap, 0, -1)
    inspector.redis.delete(inspector.keys.at_cap)
    await capped.jobs.finish(claim, reply_to(claim))
    inspector.redis.zadd(inspector.keys.at_cap, dict.fromkeys(at_cap, 0))
    assert inspector.redis.smembers(inspector.keys.running(claim.lane)) == {claim.job_id}

    await capped.maintenance.sweep()

    assert [one.job_id for one in await take_all(worker)] == ann[1:]


async def test_a_parked_job_is_cancelled_and_expires_as_others_do(
    capped: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ids = await submit(capped, "acme", 5)
    running = await take_all(worker)
    await capped.jobs.cancel(ids[2])
    inspector.outlive(ids[3])
    await capped.maintenance.sweep()
    assert inspector.job(ids[3])["state"] == JobState.EXPIRED

    await worker.answer(running[0])

    assert [claim.job_id for claim in await take_all(worker)] == ids[4:]


async def test_without_caps_nothing_is_counted(ledger: Ledger, inspector: LedgerInspector) -> None:
    worker = Worker(ledger, inspector)
    await submit(ledger, "acme", 20, user_id="ann")

    assert len(await take_all(worker)) == 20
    assert not inspector.redis.keys(f"{inspector.keys.root}:running:*")


async def take_of_all(ledger: Ledger, inspector: LedgerInspector, taken: int = 0) -> list[Claim]:
    """Take every hint of all shards; return what was claimed for them."""
    claims = []
    while inspector.redis.llen(inspector.list_of("replies", 3)):
        taken += 1
        claim = await ledger.jobs.claim(inspector.pop_hint(NORMAL), f"token-{taken}")
        claims += [claim] if claim else []
    return claims


@pytest.mark.parametrize(("cap", "running"), [(6, 6), (4, 4), (2, 4), (0, 40)])
async def test_all_shards_together_run_no_more_than_the_cap_and_each_at_least_one(
    settings: Settings, inspector: LedgerInspector, cap: int, running: int
) -> None:
    update = {"shards": 4, "max_running_per_tenant": cap, "max_running_per_user": 0}
    async with Ledger(settings.model_copy(update=update), patience_s=5.0) as ledger:
        ids = await submit(ledger, "acme", 40)
        assert {job_id[:3] for job_id in ids} == {"j00", "j01", "j02", "j03"}
        claims = await take_of_all(ledger, inspector)
        assert len(claims) == running

        answered = 0
        while claims:
            await ledger.jobs.finish(claims[0], reply_to(claims.pop(0)))
            answered += 1
            claims += await take_of_all(ledger, inspector, 1000 * answered)
            assert len(claims) <= running
        assert answered == len(ids)


async def test_an_order_of_an_operator_is_of_all_shards_as_well(
    settings: Settings, inspector: LedgerInspector
) -> None:
    async with Ledger(settings.model_copy(update={"shards": 4}), patience_s=5.0) as ledger:
        for shard in range(4):
            inspector.keys = Keys(settings.namespace, shard)
            weigh(inspector, "acme", most_running=7)
        await submit(ledger, "acme", 40)
        assert len(await take_of_all(ledger, inspector)) == 7


@pytest.mark.parametrize(
    ("cap", "wanted", "parts"),
    [
        (50, [0, 0, 0, 0], [13, 13, 12, 12]),
        (50, [400, 0, 0, 0], [47, 1, 1, 1]),
        (50, [400, 400, 400, 400], [12, 12, 13, 13]),
        (50, [400, 5, 400, 0], [22, 5, 22, 1]),
        (50, [3, 3, 3, 3], [13, 13, 12, 12]),
        (4, [9, 0, 0, 0], [1, 1, 1, 1]),
        (2, [9, 0, 0, 0], [1, 1, 1, 1]),
        (7, [9], [7]),
    ],
)
def test_a_cap_is_divided_by_what_each_shard_can_use(
    cap: int, wanted: list[int], parts: list[int]
) -> None:
    assert parts_of(cap, wanted) == parts
    assert sum(parts) == max(cap, len(wanted))


@pytest.fixture
async def sharded(settings: Settings) -> AsyncIterator[Ledger]:
    update = {"shards": 4, "max_running_per_tenant": 8}
    async with Ledger(settings.model_copy(update=update), patience_s=5.0) as ledger:
        yield ledger


async def test_the_part_of_a_shard_without_jobs_is_given_to_the_one_with_many(
    sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 12, user_id="ann")
    claims = await take_of_all(sharded, inspector)
    assert len(claims) == 2, "a quarter"

    await sharded.maintenance.balance_if_due()
    claims += await take_of_all(sharded, inspector, 100)
    assert len(claims) == 5, "all but one of each other shard"

    # Others come: their shards keep one each until a part is given back, and then have their share.
    others = await submit(sharded, "acme", 40)
    claims += await take_of_all(sharded, inspector, 200)
    assert len(claims) == 8
    for _ in range(60):
        await sharded.maintenance.cap_parts.balance("acme")
        claims += await take_of_all(sharded, inspector, 1000 * (len(claims) + 1))
        assert len(claims) <= 8
        if not claims:
            break
        await sharded.jobs.finish(claims[0], reply_to(claims.pop(0)))
    assert not claims
    for one in others:
        keys = Keys(inspector.keys.namespace, int(one[1:3], 16))
        assert inspector.redis.hget(keys.job(one), "state") == JobState.SUCCEEDED


async def test_a_balance_gives_away_nothing_that_still_runs(
    sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 40)
    claims = await take_of_all(sharded, inspector)
    assert len(claims) == 8
    shard = claims[0].job_id[:3]
    for claim in [one for one in claims if one.job_id.startswith(shard)]:
        await sharded.jobs.finish(claim, reply_to(claim))
        claims.remove(claim)

    for _ in range(3):
        await sharded.maintenance.cap_parts.balance("acme")
        claims += await take_of_all(sharded, inspector, 1000 * (len(claims) + 1))
        assert len(claims) <= 8


async def test_a_balance_that_a_later_one_overtook_changes_nothing(
    sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 12, user_id="ann")
    await take_of_all(sharded, inspector)
    parts = sharded.maintenance.cap_parts
    keys = Keys(inspector.keys.namespace, 0)

    assert await parts._set(keys, "acme", 2_000_000, -1) is not None
    assert await parts._set(keys, "acme", 1_000_000, -1) is None
    assert await parts._set(keys, "acme", 1_000_000, 8) is None
    assert await parts._set(keys, "acme", 3_000_000, 8) is None, "it has not begun here"
    await parts.balance("acme")
    assert inspector.redis.hget(keys.cap_parts, "acme") == "2 8 2000000"


async def test_parts_are_forgotten_once_nothing_runs_or_waits(
    sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 12, user_id="ann")
    claims = await take_of_all(sharded, inspector)
    parts = sharded.maintenance.cap_parts
    await parts.balance_all()
    kept = f"{inspector.keys.namespace}:*cap-parts"
    assert len(inspector.redis.keys(kept)) == 4
    await parts.balance_all()
    assert len(inspector.redis.keys(kept)) == 4, "its jobs still run"
    while claims:
        for claim in claims:
            await sharded.jobs.finish(claim, reply_to(claim))
        claims = await take_of_all(sharded, inspector, 100)

    inspector.redis.delete(*inspector.redis.keys(f"{inspector.keys.namespace}:*at-cap") or ["-"])
    for _ in range(2):
        await parts.balance_all()
    assert inspector.redis.keys(kept) == []


async def test_a_part_without_a_cap_is_forgotten(
    settings: Settings, sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 12, user_id="ann")
    await take_of_all(sharded, inspector)
    await sharded.maintenance.cap_parts.balance_all()
    uncapped = settings.model_copy(update={"shards": 4, "max_running_per_tenant": 0})
    async with Ledger(uncapped, patience_s=5.0) as ledger:
        await ledger.maintenance.cap_parts.balance_all()
    assert inspector.redis.keys(f"{inspector.keys.namespace}:*cap-parts") == []


async def test_a_tenant_behind_thousands_at_their_cap_is_balanced(
    sharded: Ledger, inspector: LedgerInspector
) -> None:
    at_cap = {f"l00_t/{number}": number for number in range(2500)} | {":acme": 9999}
    inspector.redis.zadd(inspector.keys.at_cap, at_cap)
    await submit(sharded, "acme", 1)
    await sharded.maintenance.cap_parts.balance_all()
    assert inspector.redis.hexists(inspector.keys.cap_parts, "acme")


async def test_a_part_of_another_cap_counts_no_more(
    settings: Settings, sharded: Ledger, inspector: LedgerInspector
) -> None:
    await submit(sharded, "acme", 40, user_id="ann")
    await take_of_all(sharded, inspector)
    await sharded.maintenance.cap_parts.balance("acme")
    other = settings.model_copy(update={"shards": 4, "max_running_per_tenant": 4})
    async with Ledger(other, patience_s=5.0) as ledger:
        await submit(ledger, "acme", 40)
        claims = await take_of_all(ledger, inspector, 500)
        assert len(claims) == 3, "ann's shard runs more than its part already"


async def test_one_worker_of_the_fleet_balances_and_none_of_a_single_shard(
    settings: Settings, ledger: Ledger, sharded: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.maintenance.balance_if_due()
    assert not inspector.redis.exists(inspector.keys.balanced)
    await submit(sharded, "acme", 12, user_id="ann")
    await take_of_all(sharded, inspector)
    inspector.redis.set(inspector.keys.balanced, 1)
    await sharded.maintenance.balance_if_due()
    assert not inspector.redis.keys(f"{inspector.keys.namespace}:*cap-parts")
    inspector.redis.delete(inspector.keys.balanced)
    await sweep(sharded.maintenance)
    assert len(inspector.redis.keys(f"{inspector.keys.namespace}:*cap-parts")) == 4
