"""A shard whose hints stand far behind those of others has its next job hinted ahead of all."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.shard import Shards
from afterword.shared.lifecycle import JobState
from afterword.shared.names import memory_key, queue_prefix, shard_in, shard_of
from afterword.shared.settings import Settings
from afterword.workers.replies.shard_turns import MOST_PACE, ShardTurns
from tests.kit.ledger.builder import LedgerInspector
from tests.ledger.test_fair_shares import NORMAL, PAST_GRACE_S, Worker, submit

pytestmark = pytest.mark.redis

SHARDS = 4

#: For how long jobs of a backlog have waited.
LONG_S = 60.0


def user_in(shard: int, tenant: str) -> str:
    """Return a user of a tenant in that shard."""
    names = (f"user-{number}" for number in range(1000))
    return next(one for one in names if shard_of(memory_key(tenant, one), SHARDS) == shard)


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with Ledger(settings.model_copy(update={"shards": SHARDS}), patience_s=5.0) as ledger:
        yield ledger


@pytest.fixture
def worker(ledger: Ledger, inspector: LedgerInspector) -> Worker:
    return Worker(ledger, inspector)


def pass_time(settings: Settings, seconds: float) -> None:
    """Let time pass in all shards; the mark is one for all."""
    mark = f"{queue_prefix(settings.namespace)}mark:{NORMAL}"
    redis = LedgerInspector(settings).redis
    passed = int(redis.get(mark)) - round(seconds * 1000)
    for shard in range(SHARDS):
        LedgerInspector(settings, shard).pass_time(seconds)
        redis.set(mark, passed)


async def backlog_of_acme(ledger: Ledger, worker: Worker, count: int) -> None:
    """Queue jobs of one user in the first shard; answer the first."""
    await submit(ledger, "acme", count, user_id=user_in(0, "acme"))
    assert await worker.answer(await worker.take()) == "acme"


async def test_the_next_job_of_a_shard_is_hinted_ahead_of_all_and_answered_once(
    ledger: Ledger, worker: Worker
) -> None:
    await backlog_of_acme(ledger, worker, 20)
    (only,) = await submit(ledger, "zeta", user_id=user_in(2, "zeta"))

    assert await ledger.jobs.hint_next(2, NORMAL)
    assert not await ledger.jobs.hint_next(2, NORMAL), "it is at the front already"
    assert not await ledger.jobs.hint_next(1, NORMAL), "nothing waits there"

    claim = await worker.take()
    assert claim is not None
    assert claim.job_id == only
    assert await worker.answer(claim) == "zeta"
    assert await worker.answer_all() == ["acme"] * 19
    assert (await ledger.queries.status(only)).attempts == 1


async def test_no_hint_counts_as_lost_because_another_was_sent_ahead(
    settings: Settings, ledger: Ledger, worker: Worker
) -> None:
    await backlog_of_acme(ledger, worker, 20)
    pass_time(settings, PAST_GRACE_S)
    await submit(ledger, "zeta", user_id=user_in(2, "zeta"))
    await ledger.jobs.hint_next(2, NORMAL)
    assert await worker.answer(await worker.take()) == "zeta"

    assert (await ledger.maintenance.sweep()).hinted_again == 0


async def test_a_hint_sent_ahead_that_is_lost_is_found(
    settings: Settings, ledger: Ledger, worker: Worker, inspector: LedgerInspector
) -> None:
    await backlog_of_acme(ledger, worker, 2)
    (only,) = await submit(ledger, "zeta", user_id=user_in(2, "zeta"))
    await ledger.jobs.hint_next(2, NORMAL)
    inspector.drop_hints()
    pass_time(settings, PAST_GRACE_S)

    # First the others: while a hint is in the queue, newer ones may be, too.
    for _ in range(2):
        await ledger.maintenance.sweep()
        await worker.answer_all()

    assert (await ledger.queries.status(only)).state is JobState.SUCCEEDED


async def test_what_is_sent_ahead_is_ready_since_it_came(
    settings: Settings, ledger: Ledger, worker: Worker
) -> None:
    await backlog_of_acme(ledger, worker, 20)
    other = LedgerInspector(settings, 2)
    await submit(ledger, "zeta", user_id=user_in(2, "zeta"))
    other.pass_time(600.0)
    await ledger.jobs.hint_next(2, NORMAL)

    shard = (await ledger.maintenance.overview())[2]
    (since,) = [row.ready_since for row in shard.agendas if row.name == NORMAL]

    assert since is not None
    assert 600 <= (shard.at - since).total_seconds() < 660
    await worker.answer(await worker.take())
    assert not other.redis.exists(other.keys.displaced(NORMAL))


async def test_through_a_broker_elsewhere_it_is_sent_ahead_as_well(ledger: Ledger) -> None:
    sent: list[tuple[str, str]] = []
    pipelines = ledger.jobs._shards._pipelines
    ledger.jobs._shards = Shards(ledger.settings, pipelines, sent.extend)
    (only,) = await submit(ledger, "zeta", user_id=user_in(2, "zeta"))

    assert await ledger.jobs.hint_next(2, NORMAL)
    assert sent == [(f"{NORMAL}^", only)]


@pytest.mark.parametrize("alone", [1, 300])
async def test_a_job_waits_for_few_hints_however_many_were_sent_before(
    ledger: Ledger, worker: Worker, alone: int
) -> None:
    """Also if nothing has waited in its shard for long, so that it is looked at seldom."""
    turns = ShardTurns(SHARDS, ledger.jobs.hint_next)
    await submit(ledger, "acme", 600, user_id=user_in(0, "acme"))
    for _ in range(alone):
        claim = await worker.take()
        assert claim is not None
        assert await worker.answer(claim) == "acme"
        await turns.took(claim.job_id, claim.agenda, LONG_S)
    await submit(ledger, "zeta", user_id=user_in(2, "zeta"))

    before, tenant = worker.takes, ""
    while tenant != "zeta":
        claim = await worker.take()
        assert claim is not None
        tenant = await worker.answer(claim)
        await turns.took(claim.job_id, claim.agenda, LONG_S)

    assert worker.takes - before <= SHARDS * MOST_PACE + 1


async def test_a_shard_with_many_jobs_gets_its_part_of_the_hints(
    ledger: Ledger, worker: Worker
) -> None:
    turns = ShardTurns(SHARDS, ledger.jobs.hint_next)
    await submit(ledger, "acme", 300, user_id=user_in(0, "acme"))
    await submit(ledger, "zeta", 300, user_id=user_in(2, "zeta"))
    of = {0: 0, 2: 0}
    for _ in range(100):
        claim = await worker.take()
        assert claim is not None
        await worker.answer(claim)
        of[shard_in(claim.job_id)] += 1
        await turns.took(claim.job_id, claim.agenda, LONG_S)

    assert of[2] >= 100 // (SHARDS + 1) - 1


async def test_without_a_backlog_or_other_shards_nobody_looks() -> None:
    looked: list[int] = []

    async def hint_next(shard: int, _: str) -> bool:
        looked.append(shard)
        return False

    for shards, waited_s in ((1, LONG_S), (SHARDS, 0.5)):
        turns = ShardTurns(shards, hint_next)
        for _ in range(100):
            await turns.took("j00_x", NORMAL, waited_s)
    assert looked == []

    turns = ShardTurns(SHARDS, hint_next)
    for _ in range(320):
        await turns.took("j00_" + "0" * 32, NORMAL, LONG_S)
    assert set(looked) == {1, 2, 3}
    assert len(looked) <= 3 * (320 // (SHARDS * MOST_PACE) + 4)
