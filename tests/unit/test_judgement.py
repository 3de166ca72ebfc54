"""What the doctor concludes from what it was told, where a staged fault would take long to make."""

from __future__ import annotations

from datetime import UTC, datetime

from afterword.producer.cli.checks.judgement import of_tenants
from afterword.shared.ledger.records import Account, Overview
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings


def shard(**queued: int) -> Overview:
    """Return a shard in which tenants have so many queued jobs."""
    counts = {f"job:queued:{tenant}": count for tenant, count in queued.items()}
    return Overview(datetime(2026, 5, 8, tzinfo=UTC), 0, 0, 0, 0, (), counts, ())


def account(tenant: str) -> Account:
    jobs, turns = dict.fromkeys(JobState, 0), dict.fromkeys(TurnState, 0)
    return Account(tenant, jobs, turns, 0, 0, 0.0)


def test_a_tenant_that_is_refused_in_one_shard_is_told_of() -> None:
    settings = Settings(shards=4, max_open_per_tenant=10)
    shards = [shard(acme=10, bar=4), shard(bar=4), shard(bar=4), shard()]
    accounts = [account("acme"), account("bar")]

    (found,) = of_tenants(accounts, shards, settings)

    assert (found.level, found.detail.partition(":")[0]) == ("warn", "acme")
    assert of_tenants(accounts, shards[1:], settings) == []
    assert of_tenants(accounts, shards, Settings(shards=4, max_open_per_tenant=0)) == []
