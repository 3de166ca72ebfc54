"""No script does more than a bounded amount of work, however much there is: others wait meanwhile.

What a script does is counted in the commands that it calls, as Redis counts them. How long the
longest takes with half a million queued is measured by `python -m benchmarks --only scripts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Account, EraseClaim
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    lane_of,
    submit_job,
)
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.finding(13)]

#: Many more than one script may touch.
COUNT = 500

#: Commands that one script may call: Redis does about 300 in a millisecond.
MOST = 1000

_READS = ("info", "config|resetstat")


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    uncapped = dict.fromkeys((name for name in Settings.model_fields if "_per_" in name), 0)
    async with Ledger(settings.model_copy(update=uncapped), patience_s=30.0) as opened:
        yield opened


@pytest.fixture
def own() -> Iterator[Valkey]:
    """Give a server of one's own: its statistics are of this test alone."""
    with Valkey() as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.url, namespace=namespace, durability="none")


async def longest(inspector: LedgerInspector, step: Callable[[], Awaitable[object]]) -> float:
    """Take a step; return how many commands each of its scripts called, on average."""
    inspector.redis.config_resetstat()
    await step()
    stats = {
        name.removeprefix("cmdstat_"): found["calls"]
        for name, found in inspector.redis.info("commandstats").items()
    }
    scripts = stats.pop("evalsha", 0) + stats.pop("eval", 0)
    assert scripts, stats
    called = sum(int(calls) for name, calls in stats.items() if name not in _READS)
    return float(called / scripts)


async def submitted(ledger: Ledger, **fields: Any) -> list[str]:
    """Submit many jobs of one user."""
    requests = [chat_request(**fields) for _ in range(COUNT)]
    told = await ledger.jobs.submit_many((ledger.jobs.new_id(one), one) for one in requests)
    return [one.job_id for one in told if not isinstance(one, Exception)]


async def test_an_interrupt_ends_the_jobs_before_it_in_slices(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submitted(ledger, conversation_id="c")

    async def interrupt() -> None:
        await submit_job(ledger, conversation_id="c", when_busy="interrupt")

    assert await longest(inspector, interrupt) < MOST
    assert inspector.counts()["job:cancelled:default"] == COUNT
    assert inspector.redis.zcard(inspector.keys.open) == 1
    assert inspector.open_counts() == inspector.expected_open_counts()


async def test_the_scripts_of_one_command_share_its_limit_of_ended_jobs(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    for conversation in "abcdef":
        for _ in range(20):
            await submit_job(ledger, conversation_id=conversation)

    async def interrupt_all() -> None:
        await asyncio.gather(
            *(submit_job(ledger, conversation_id=one, when_busy="interrupt") for one in "abcdef")
        )

    assert await longest(inspector, interrupt_all) < MOST
    assert inspector.redis.zcard(inspector.keys.open) == 6


@pytest.mark.parametrize("flood", ["expired", "hinted_again", "taken_back"])
async def test_a_sweep_does_a_part_of_what_is_due(
    ledger: Ledger, inspector: LedgerInspector, flood: str
) -> None:
    jobs = await submitted(ledger, expires_in=5 if flood == "expired" else 3600)
    if flood == "taken_back":
        for job_id in jobs:
            await claim_job(ledger, job_id)
    inspector.drop_hints()
    inspector.pass_time(60)

    async def sweep() -> None:
        done = 0
        for _ in range(COUNT):
            done += getattr(await ledger.maintenance.sweep(), flood)
            if done >= COUNT:
                return
            inspector.drop_hints()
        pytest.fail(f"{done} of {COUNT}")

    assert await longest(inspector, sweep) < MOST


async def test_an_erasure_empties_the_jobs_in_slices(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submitted(ledger, conversation_id="c")
    await ledger.erasures.begin(lane_of(), "test")
    claim = await ledger.turns.claim_lane(lane_of(), "token", max_turns=20)
    assert isinstance(claim, EraseClaim)

    assert await longest(inspector, lambda: ledger.erasures.remove_records(claim)) < MOST
    assert inspector.counts()["job:cancelled:default"] == COUNT
    receipt = await ledger.erasures.receipt(lane_of())
    assert receipt is not None
    assert receipt.jobs == COUNT


async def test_a_thousand_leases_are_renewed_in_slices(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    held = [await claim_job(ledger, job_id) for job_id in await submitted(ledger)]
    leases = [(one.job_id, one.fence) for one in held] * 2

    assert await longest(inspector, lambda: ledger.jobs.renew_leases(leases)) < MOST


async def test_counts_of_many_tenants_are_read_part_by_part(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    tenants = [f"tenant-{number}" for number in range(2 * COUNT)]
    await asyncio.gather(*(submit_job(ledger, tenant=tenant) for tenant in tenants))
    accounts: list[Account] = []

    async def read() -> None:
        accounts.extend(await ledger.accounts.by_tenant(late_s=60))
        await ledger.maintenance.overview()

    assert await longest(inspector, read) < MOST
    assert [account.tenant for account in accounts] == sorted(tenants)
    assert "cmdstat_hgetall" not in inspector.redis.info("commandstats")


async def test_old_entries_are_forgotten_a_few_at_a_time(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    inspector.redis.zadd(inspector.keys.failed_jobs, {f"old-{n}": n for n in range(COUNT)})

    await ledger.jobs.fail(await claim_job(ledger, await submit_job(ledger)), "rejected")

    assert COUNT - 20 < inspector.redis.zcard(inspector.keys.failed_jobs) < COUNT
