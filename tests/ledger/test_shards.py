"""Several shards: all data of one user is in one of them, and every step finds it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import SweepCounts
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.names import Keys, lane_id, memory_key, shard_in, shard_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    replay_one,
    submit_and_answer,
    submit_and_claim,
    submit_job,
    submit_request,
)
from tests.kit.waiting import until

if TYPE_CHECKING:
    from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

SHARDS = 4
USERS = tuple(f"user-{n}" for n in range(12))


@pytest.fixture
def settings(valkey: Valkey, namespace: str) -> Settings:
    return Settings(
        redis_url=valkey.url,
        namespace=namespace,
        durability="none",
        memory="embedded",
        shards=SHARDS,
    )


@pytest.fixture
async def jobs(ledger: Ledger) -> dict[str, str]:
    """Give a job of each user."""
    return {user: await submit_job(ledger, user_id=user) for user in USERS}


def lane(user: str) -> str:
    owner = memory_key("default", user)
    return lane_id(owner, shard_of(owner, SHARDS))


async def test_the_users_are_spread_and_each_has_one_shard(
    ledger: Ledger, jobs: dict[str, str]
) -> None:
    assert {shard_in(job_id) for job_id in jobs.values()} == set(range(SHARDS))
    for user, job_id in jobs.items():
        assert shard_in(await submit_job(ledger, user_id=user)) == shard_in(job_id)
        assert shard_in(lane(user)) == shard_in(job_id)


async def test_every_key_carries_its_shard_as_a_hash_tag(
    ledger: Ledger, jobs: dict[str, str], settings: Settings, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger, user_id=USERS[0], conversation_id="c", idempotency_key="k")
    await ledger.maintenance.sweep()

    roots = tuple(Keys(settings.namespace, shard).root + ":" for shard in range(SHARDS))
    keys = set(inspector.redis.scan_iter(f"{settings.namespace}:*"))
    assert {key for key in keys if not key.startswith(roots)} == {
        inspector.list_of("replies", 3),
        inspector.list_of("memories"),
        f"{settings.namespace}:mark:replies.3",
    }
    for user, job_id in jobs.items():
        root = Keys(settings.namespace, shard_in(lane(user))).root
        assert f"{root}:job:{job_id}" in keys


async def test_a_job_lives_its_life_on_any_shard(ledger: Ledger, jobs: dict[str, str]) -> None:
    for user, first in jobs.items():
        turn_id = await submit_and_answer(ledger, user_id=user)
        await ledger.jobs.cancel(first)
        held = await claim_lane(ledger, lane(user))
        assert [turn.id for turn in held.turns] == [first, turn_id]
        for turn in held.turns:
            await ledger.turns.begin(held, turn.id)
            await ledger.turns.settle(held, turn.id, TurnState.STORED)
        await ledger.turns.release_lane(held)
        status = await ledger.queries.status(turn_id)
        assert (status.state, status.turn) == (JobState.SUCCEEDED, TurnState.STORED)


async def test_leases_of_all_shards_are_renewed_in_one_call(
    ledger: Ledger, jobs: dict[str, str]
) -> None:
    held = [await claim_job(ledger, job_id) for job_id in jobs.values()]
    await ledger.jobs.cancel(held[0].job_id)

    assert await ledger.jobs.renew_leases([(one.job_id, one.fence) for one in held]) == [
        held[0].job_id
    ]


@pytest.fixture
def inspectors(settings: Settings) -> Iterator[list[LedgerInspector]]:
    opened = [LedgerInspector(settings, shard) for shard in range(SHARDS)]
    yield opened
    for inspector in opened:
        inspector.close()


async def test_hints_lost_in_every_shard_come_back(
    ledger: Ledger, jobs: dict[str, str], inspectors: list[LedgerInspector]
) -> None:
    first = inspectors[0]
    first.drop_hints()
    for inspector in inspectors:
        inspector.pass_time(6)

    # The first shard finds the queue empty; the others learn from what is taken up then.
    assert (await ledger.maintenance.sweep()).hinted_again >= 1
    found = [first.pop_hint("replies.3")]
    await claim_job(ledger, found[0])
    assert await ledger.maintenance.sweep() != SweepCounts()

    assert sorted(found + first.hinted("replies.3")) == sorted(jobs.values())


async def test_a_hint_lost_in_a_quiet_shard_is_found_while_the_others_are_busy(
    ledger: Ledger, inspectors: list[LedgerInspector]
) -> None:
    lost = await submit_job(ledger, user_id=USERS[0])
    first = inspectors[0]
    first.drop_hints()
    for inspector in inspectors:
        inspector.pass_time(6)
    busy = next(user for user in USERS if shard_in(lane(user)) != shard_in(lost))
    for _ in range(3):
        await submit_job(ledger, user_id=busy)

    await claim_job(ledger, first.pop_hint("replies.3"))
    await ledger.maintenance.sweep()

    assert lost in first.hinted("replies.3")


async def test_the_overview_has_a_row_per_shard(ledger: Ledger, jobs: dict[str, str]) -> None:
    rows = await ledger.maintenance.overview()

    assert len(rows) == SHARDS
    assert sum(row.open_jobs for row in rows) == len(jobs)


async def test_dead_letters_of_every_shard_are_listed(ledger: Ledger) -> None:
    turns = {await submit_and_answer(ledger, user_id=user): lane(user) for user in USERS}
    for turn_id, its_lane in turns.items():
        held = await claim_lane(ledger, its_lane)
        await ledger.turns.begin(held, turn_id)
        await ledger.turns.bury(held, turn_id, "rejected", Fault.REQUEST, "v")

    assert {letter.id async for letter in ledger.dead_letters.select()} == set(turns)
    await asyncio.gather(*(replay_one(ledger, turn_id) for turn_id in turns))
    assert [letter async for letter in ledger.dead_letters.select()] == []


async def test_cancelled_jobs_of_every_shard_are_heard_of(ledger: Ledger) -> None:
    fenced: set[str] = set()
    running = [await submit_and_claim(ledger, user_id=user) for user in USERS]
    async with ledger.listen_to_fences(fenced.add):
        for held in running:
            await ledger.jobs.cancel(held.job_id)
        await until(lambda: fenced == {held.job_id for held in running}, "all are heard of")


async def test_one_key_of_one_tenant_may_be_used_by_each_user(ledger: Ledger) -> None:
    """A user's shard keeps the keys; users of one tenant may share a shard, or not."""
    request = chat_request(user_id=USERS[0], idempotency_key="k")
    first = await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)
    again = await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)

    assert again.job_id == first.job_id
