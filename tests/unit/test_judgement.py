"""What the doctor concludes from what it was told, where a staged fault would take long to make."""

from __future__ import annotations

from datetime import UTC, datetime

from afterword.producer.cli.checks.judgement import of_tenants
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder, TenantLimits
from afterword.shared.ledger.records import Account, Overview
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.settings import Settings

NOW = datetime(2026, 5, 8, tzinfo=UTC)


def shard(**queued: int) -> Overview:
    """Return a shard in which tenants have so many queued jobs."""
    counts = {f"job:queued:{tenant}": count for tenant, count in queued.items()}
    return Overview(NOW, 0, 0, 0, 0, (), counts, ())


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


def test_a_cap_that_an_order_sets_takes_the_place_of_the_setting() -> None:
    def limited(tenant: str, limits: TenantLimits) -> SteeringOrder:
        return SteeringOrder(
            OrderKind.LIMITS, "kim", NOW, until=None, reason="", tenant=tenant, limits=limits
        )

    settings = Settings(max_open_per_tenant=10)
    shards = [shard(low=3, high=12, same=11, other=12)]
    accounts = [account(tenant) for tenant in ("low", "high", "same", "other", "empty")]
    orders = [
        limited("low", TenantLimits(most_open=3)),
        limited("high", TenantLimits(most_open=20)),
        limited("same", TenantLimits(weight=2)),
    ]

    found = of_tenants(accounts, shards, settings, orders)

    assert [one.level for one in found] == ["warn", "warn"]
    assert [one.detail.partition(":")[0] for one in found] == ["same, other", "low"]
    assert ["--most-open" in (one.remedy or "") for one in found] == [False, True]
    (all_full,) = of_tenants(accounts[:1], shards, settings, orders)
    assert all_full.level == "fail"
