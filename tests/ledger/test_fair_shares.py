"""Tenants share the workers: a hint serves the tenant whose turn it is, whichever job it names."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Claim, SubmitResult
from afterword.shared.ledger.shard import Shards
from afterword.shared.lifecycle import JobState
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    reply_to,
    submit_job,
)

pytestmark = pytest.mark.redis

NORMAL = "replies.3"
PAST_GRACE_S = 6.0


class Worker:
    """Takes hints as a worker does, the oldest first, and claims what they are for."""

    def __init__(self, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.ledger, self.inspector = ledger, inspector
        self.takes = 0
        self.tenants: dict[str, str] = {}

    async def take(self, agenda: str = NORMAL, *, ahead: bool = False) -> Claim | None:
        """Take one hint and claim; return None if there is nothing to claim for it."""
        self.takes += 1
        pop = self.inspector.pop_newest_hint if ahead else self.inspector.pop_hint
        token = f"token-{self.takes}"
        return await self.ledger.jobs.claim(pop(agenda), token, ahead=ahead)

    async def answer(self, claim: Claim | None) -> str:
        """Answer a claimed job; return its tenant."""
        assert claim is not None
        await self.ledger.jobs.finish(claim, reply_to(claim))
        return self.tenant_of(claim)

    def tenant_of(self, claim: Claim) -> str:
        return str(json.loads(claim.body)["tenant"])

    async def answer_all(self, agenda: str = NORMAL) -> list[str]:
        """Answer until no hint is left; return the tenants in the order of their turns."""
        order = []
        while self.inspector.hinted(agenda):
            if (claim := await self.take(agenda)) is not None:
                order.append(await self.answer(claim))
        return order


@pytest.fixture
def worker(ledger: Ledger, inspector: LedgerInspector) -> Worker:
    return Worker(ledger, inspector)


async def submit(ledger: Ledger, tenant: str, count: int = 1, **fields: Any) -> list[str]:
    """Submit jobs of a tenant, each of a user of its own; return their ids."""
    asked = [
        chat_request(**({"user_id": f"u{number}"} | fields), tenant=tenant)
        for number in range(count)
    ]
    told = await ledger.jobs.submit_many((ledger.jobs.new_id(one), one) for one in asked)
    assert all(isinstance(one, SubmitResult) for one in told), told
    return [one.job_id for one in told if isinstance(one, SubmitResult)]


def weigh(inspector: LedgerInspector, tenant: str, **limits: float) -> None:
    """Give an operator's order about a tenant."""
    order = {"id": f"o-{tenant}", "until": 0, "limits": limits}
    inspector.redis.hset(inspector.keys.orders, f"limits :{tenant}", json.dumps(order))


def shares(order: Sequence[str], first: int) -> dict[str, int]:
    return dict(Counter(order[:first]))


async def test_the_one_job_of_a_tenant_is_next_behind_ten_thousand_of_another(
    ledger: Ledger, worker: Worker
) -> None:
    await submit(ledger, "acme", 10_000)
    assert await worker.answer(await worker.take()) == "acme"
    (only,) = await submit(ledger, "zeta")

    claim = await worker.take()

    assert claim is not None
    assert claim.job_id == only
    assert await worker.answer(await worker.take()) == "acme"


async def test_tenants_with_equal_weights_take_turns_and_each_job_is_answered_once(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ids = [job_id for tenant in ("a", "b", "c") for job_id in await submit(ledger, tenant, 20)]

    order = await worker.answer_all()

    assert len(order) == 60
    assert all(shares(order, 3 * n) == {"a": n, "b": n, "c": n} for n in range(1, 21))
    assert {inspector.job(job_id)["state"] for job_id in ids} == {JobState.SUCCEEDED}
    assert worker.takes == 60, "a hint for each job, and no more"
    assert not inspector.redis.exists(inspector.keys.share(NORMAL))
    assert inspector.redis.keys(f"{inspector.keys.root}:share-queue:*") == []


async def test_weights_are_the_shares(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    weigh(inspector, "c", weight=2)
    for tenant in ("a", "b", "c"):
        await submit(ledger, tenant, 40)

    order = await worker.answer_all()

    assert all(
        abs(shares(order, 4 * n)[tenant] - share * n) <= 1
        for n in range(1, 20)
        for tenant, share in (("a", 1), ("b", 1), ("c", 2))
    ), order


async def test_a_weight_below_one_is_a_smaller_share(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    weigh(inspector, "slow", weight=0.25)
    await submit(ledger, "slow", 10)
    await submit(ledger, "a", 40)

    order = await worker.answer_all()

    assert 4 <= shares(order, 25)["slow"] <= 6
    assert len(order) == 50


async def test_who_comes_back_after_each_reply_gets_no_more_than_a_share(
    ledger: Ledger, worker: Worker
) -> None:
    """A tenant with one job at a time would be new, and so next, each time."""
    await submit(ledger, "heavy", 20)
    order = [await worker.answer(await worker.take())]
    for _ in range(19):
        if order[-1] == "again" or len(order) == 1:
            await submit(ledger, "again")
        order.append(await worker.answer(await worker.take()))

    assert 9 <= shares(order, 20)["heavy"] <= 11


async def test_new_tenants_do_not_keep_an_older_one_waiting(ledger: Ledger, worker: Worker) -> None:
    """Those who come at the same time are served in their order, whatever they are called."""
    await submit(ledger, "zeta")
    order = []
    for number in range(5):
        await submit(ledger, f"acme{number}")
        order.append(await worker.answer(await worker.take()))

    assert order[0] == "zeta"


async def test_a_tenants_own_jobs_keep_their_order(ledger: Ledger, worker: Worker) -> None:
    mine = await submit(ledger, "acme", 30)
    await submit(ledger, "zeta", 5)
    order = []
    for _ in range(35):
        claim = await worker.take()
        assert claim is not None
        order.append(claim.job_id)
        await worker.answer(claim)

    assert [job_id for job_id in order if job_id in mine] == mine


async def test_alone_a_tenants_jobs_are_claimed_by_name(ledger: Ledger) -> None:
    first, second = await submit(ledger, "acme", 2)

    claim = await ledger.jobs.claim(second, "token")

    assert claim is not None
    assert (claim.job_id, claim.hint) == (second, second)
    assert (await claim_job(ledger, first)).job_id == first


async def test_the_newest_hint_is_for_the_newest_job_of_whose_turn_it_is(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """Beside a backlog that is held back, every other hint is the newest one (decision 0020)."""
    acme = await submit(ledger, "acme", 10)
    zeta = await submit(ledger, "zeta", 3)
    claims = [await worker.take(ahead=True) for _ in range(4)]

    taken = [claim.job_id for claim in claims if claim]
    assert sorted(taken) == sorted([zeta[-1], zeta[-2], acme[-1], acme[-2]])
    inspector.pass_time(PAST_GRACE_S)
    assert (await ledger.maintenance.sweep()).hinted_again == 0
    for claim in claims:
        await worker.answer(claim)
    assert len(await worker.answer_all()) == 9


async def test_priorities_come_before_shares(ledger: Ledger, worker: Worker) -> None:
    await submit(ledger, "acme", 5, priority="high")
    await submit(ledger, "zeta")

    assert await worker.answer_all("replies.0") == ["acme"] * 5
    assert await worker.answer_all(NORMAL) == ["zeta"]


async def test_a_claim_that_is_repeated_after_a_lost_answer_gives_the_same_job(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit(ledger, "acme", 3)
    await ledger.jobs.claim(inspector.pop_hint(NORMAL), "first")
    (only,) = await submit(ledger, "zeta")
    named = inspector.pop_hint(NORMAL)

    claims = [await ledger.jobs.claim(named, "token") for _ in range(3)]

    assert {
        claim and (claim.job_id, claim.fence, claim.attempt, claim.hint) for claim in claims
    } == {(only, claims[0] and claims[0].fence, 1, named)}
    assert inspector.counts()["job:running:zeta"] == 1


async def test_a_hint_that_stands_for_another_job_is_not_lost_with_its_own(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """The job whose hint was used up is claimed by the hint of the one that was claimed for it."""
    first, second = await submit(ledger, "acme", 2)
    await worker.answer(await worker.take())
    (only,) = await submit(ledger, "zeta")
    await worker.answer(await worker.take())

    assert inspector.hinted(NORMAL) == [only]
    assert inspector.job(only)["stands_for"] == second
    claim = await worker.take()
    assert claim is not None
    assert (claim.job_id, claim.hint) == (second, only)
    assert inspector.job(first)["state"] == JobState.SUCCEEDED


async def test_the_sweep_finds_a_lost_hint_that_stood_for_another_job(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    _, second = await submit(ledger, "acme", 2)
    await worker.answer(await worker.take())
    await submit(ledger, "zeta")
    await worker.answer(await worker.take())
    inspector.drop_hints()

    inspector.pass_time(PAST_GRACE_S)
    await ledger.maintenance.sweep()
    assert inspector.hinted(NORMAL) == [second]
    assert await worker.answer_all() == ["acme"]


async def test_no_hint_counts_as_lost_while_tenants_share(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await submit(ledger, "acme", 30)
    inspector.pass_time(PAST_GRACE_S)
    await submit(ledger, "zeta", 30)
    inspector.pass_time(PAST_GRACE_S)

    for _ in range(60):
        await worker.answer(await worker.take())
        assert (await ledger.maintenance.sweep()).hinted_again == 0


async def test_a_hint_that_is_in_a_workers_hands_for_another_job_is_not_lost(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """The job has the place of the hint that stands for it, not that of its own."""
    weigh(inspector, "zeta", weight=100)
    await submit(ledger, "acme", 2)
    await worker.answer(await worker.take())
    inspector.pass_time(PAST_GRACE_S)
    first, second = await submit(ledger, "zeta", 2)
    claim = await worker.take()
    assert claim is not None
    assert claim.job_id == first

    assert inspector.pop_hint(NORMAL) == first, "another worker has it, and has not claimed yet"
    claim = await worker.take()
    assert claim is not None
    assert claim.job_id == claim.hint == second
    assert (await ledger.maintenance.sweep()).hinted_again == 0


async def test_a_worker_that_dies_gives_its_tenants_place_back(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await submit(ledger, "acme", 5)
    await worker.answer(await worker.take())
    (only,) = await submit(ledger, "zeta")
    claim = await worker.take()
    assert claim is not None
    assert claim.job_id == only

    inspector.make_due(only)
    assert (await ledger.maintenance.sweep()).taken_back == 1
    order = await worker.answer_all()

    assert sorted(order) == ["acme"] * 4 + ["zeta"]
    assert order.index("zeta") <= 1
    assert inspector.job(only)["attempts"] == "2"


async def test_jobs_of_an_older_version_are_claimed_by_name_and_shared_from_then_on(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    ids = await submit(ledger, "acme", 10)
    for key in inspector.redis.scan_iter(f"{inspector.keys.root}:share*"):
        inspector.redis.delete(key)
    claim = await worker.take()
    assert claim is not None
    assert claim.job_id == ids[0]
    await submit(ledger, "zeta", 3)

    order = await worker.answer_all()

    assert sorted(order) == ["acme"] * 9 + ["zeta"] * 3
    assert order[:1] == ["zeta"]


async def test_jobs_that_an_older_version_claimed_or_ended_are_passed_over(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """It leaves them in their tenant's queue: each costs one look."""
    await submit(ledger, "acme", 3)
    queue = inspector.keys.share_queue(NORMAL, "zeta")
    running = (
        await claim_job(ledger, await submit_job(ledger, tenant="zeta", priority="low"))
    ).job_id
    inspector.redis.zadd(queue, {running: 1, "j00_gone": 2})
    inspector.redis.zadd(inspector.keys.share(NORMAL), {"zeta": -1})

    assert await worker.answer_all() == ["acme"] * 3
    assert not inspector.redis.exists(queue)
    assert inspector.job(running)["state"] == JobState.RUNNING


async def test_false_names_in_a_queue_do_not_stay(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    claim = await claim_job(ledger, await submit_job(ledger, tenant="zeta", priority="normal"))
    queue = inspector.keys.share_queue(NORMAL, "zeta")
    for _ in range(2):
        inspector.redis.zadd(queue, {claim.job_id: 1})
        inspector.redis.zadd(inspector.keys.share(NORMAL), {"zeta": 1})
        assert [gap async for gap in ledger.maintenance.find_inconsistencies(fix=True)] == []
        assert not inspector.redis.exists(queue)
        assert not inspector.redis.exists(inspector.keys.share(NORMAL))
    await ledger.jobs.finish(claim, reply_to(claim))
    inspector.redis.zadd(queue, {"j00_gone": 1})
    inspector.redis.zadd(inspector.keys.share(NORMAL), {"zeta": 1})
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(queue)


async def ready_for_s(ledger: Ledger) -> float | None:
    """Return for how long the oldest job of normal priority is ready."""
    (shard,) = await ledger.maintenance.overview()
    (row,) = [one for one in shard.agendas if one.name == NORMAL]
    return None if row.ready_since is None else (shard.at - row.ready_since).total_seconds()


async def displaced_job(ledger: Ledger, worker: Worker, inspector: LedgerInspector) -> str:
    """Let a job wait for ten minutes, and then its hint be used up for another tenant's."""
    _, second = await submit(ledger, "acme", 2)
    await worker.answer(await worker.take())
    inspector.pass_time(600.0)
    await submit(ledger, "zeta")
    assert await worker.answer(await worker.take()) == "zeta"
    return second


async def test_a_job_whose_hint_was_used_up_is_ready_since_its_own(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await displaced_job(ledger, worker, inspector)

    waited_s = await ready_for_s(ledger)

    assert waited_s is not None
    assert 600 <= waited_s < 660
    assert await worker.answer(await worker.take()) == "acme"
    assert await ready_for_s(ledger) is None
    assert not inspector.redis.exists(inspector.keys.displaced(NORMAL))


async def test_a_job_that_stands_at_an_older_hint_is_ready_since_its_own(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    """As beside a backlog that is held back: the newest hint is taken for another tenant."""
    await submit(ledger, "acme", 2)
    await worker.answer(await worker.take(ahead=True))
    await submit(ledger, "zeta")
    inspector.pass_time(600.0)
    await submit(ledger, "acme")
    assert await worker.answer(await worker.take(ahead=True)) == "zeta"
    assert await worker.answer(await worker.take()) == "acme"

    waited_s = await ready_for_s(ledger)

    assert waited_s is not None
    assert waited_s < 60


async def test_a_job_that_is_ready_no_more_counts_no_longer(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    second = await displaced_job(ledger, worker, inspector)
    await ledger.jobs.cancel(second)

    assert await ready_for_s(ledger) is None
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(inspector.keys.displaced(NORMAL))


async def test_a_job_that_is_hinted_anew_is_ready_since_then(
    ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await displaced_job(ledger, worker, inspector)
    inspector.drop_hints()
    inspector.pass_time(PAST_GRACE_S)
    await ledger.maintenance.sweep()

    waited_s = await ready_for_s(ledger)

    assert waited_s is not None
    assert waited_s < 60


async def test_a_cancelled_job_leaves_its_tenants_queue(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    first, second = await submit(ledger, "acme", 2)
    await ledger.jobs.cancel(first)

    assert inspector.redis.zrange(inspector.keys.share_queue(NORMAL, "acme"), 0, -1) == [second]


async def test_a_conversation_keeps_its_order_among_tenants(ledger: Ledger, worker: Worker) -> None:
    await submit(ledger, "acme", 3)
    talk = await submit(ledger, "zeta", 3, user_id="ann", conversation_id="c")
    order = []
    for _ in range(6):
        claim = await worker.take()
        assert claim is not None
        order.append(claim.job_id)
        await worker.answer(claim)

    assert [job_id for job_id in order if job_id in talk] == talk


async def test_the_queue_of_a_broker_elsewhere_is_shared_too(
    settings: Settings, inspector: LedgerInspector
) -> None:
    sent: list[tuple[str, str]] = []
    async with Ledger(settings, patience_s=5.0) as ledger:
        pipelines = ledger.jobs._shards._pipelines
        ledger.jobs._shards = ledger.jobs._submits = Shards(settings, pipelines, sent.extend)
        await submit(ledger, "acme", 5)
        await submit(ledger, "zeta", 1)
        order = []
        for number, (_, hinted) in enumerate([*sent]):
            claim = await ledger.jobs.claim(hinted, f"t{number}")
            assert claim is not None
            order.append(json.loads(claim.body)["tenant"])

    assert sorted(order) == ["acme"] * 5 + ["zeta"]
    assert order.index("zeta") == 1
    assert inspector.hinted(NORMAL) == []
