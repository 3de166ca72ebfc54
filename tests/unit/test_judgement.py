"""What the doctor concludes from what it was told, where a staged fault would take long to make."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from afterword.producer.cli.checks.tenant_caps import of_tenants
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder, TenantLimits
from afterword.shared.ledger.tenants import OpenRequests
from afterword.shared.settings import Settings

NOW = datetime(2026, 5, 8, tzinfo=UTC)


def jobs(*counts: int) -> list[OpenRequests]:
    """Return so many short jobs in each shard."""
    return [OpenRequests(count, 100 * count) for count in counts]


def limited(tenant: str, limits: TenantLimits) -> SteeringOrder:
    return SteeringOrder(
        OrderKind.LIMITS, "kim", NOW, until=None, reason="", tenant=tenant, limits=limits
    )


def test_a_tenant_that_is_refused_in_one_shard_is_told_of() -> None:
    settings = Settings(shards=4, max_open_per_tenant=10)
    opened = {"acme": jobs(10, 0, 0, 0), "bar": jobs(4, 4, 4, 0)}

    (found,) = of_tenants(opened, settings)

    assert (found.level, found.detail.partition(":")[0]) == ("warn", "acme")
    assert "AFTERWORD_MAX_OPEN_PER_TENANT" in found.remedy
    assert of_tenants(opened | {"acme": jobs(9, 9, 9, 9)}, settings) == []
    assert of_tenants(opened, Settings(shards=4, max_open_per_tenant=0)) == []


def test_a_cap_that_an_order_sets_takes_the_place_of_the_setting() -> None:
    settings = Settings(max_open_per_tenant=10)
    opened = {"low": jobs(3), "high": jobs(12), "same": jobs(11), "other": jobs(12), "empty": []}
    orders = [
        limited("low", TenantLimits(most_open=3)),
        limited("high", TenantLimits(most_open=20)),
        limited("same", TenantLimits(weight=2)),
    ]

    found = of_tenants(opened, settings, orders)

    assert [one.level for one in found] == ["warn", "warn"]
    assert [one.detail.partition(":")[0] for one in found] == ["same, other", "low"]
    assert ["--most-open" in one.remedy for one in found] == [False, True]
    assert ["AFTERWORD_MAX_OPEN_PER_TENANT" in one.remedy for one in found] == [True, False]
    (all_full,) = of_tenants({"low": opened["low"]}, settings, orders)
    assert all_full.level == "fail"


@pytest.mark.parametrize(
    ("ordered", "told"),
    [
        (None, "AFTERWORD_MAX_BYTES_PER_TENANT"),
        (TenantLimits(most_bytes=1_000), "--most-bytes of afterword limits"),
        (TenantLimits(most_bytes=100_000), None),
        (TenantLimits(most_open=3), "--most-open of afterword limits"),
    ],
)
def test_a_cap_on_bytes_is_reached_once_a_request_like_the_others_does_not_fit(
    ordered: TenantLimits | None, told: str | None
) -> None:
    settings = Settings(max_open_per_tenant=50, max_bytes_per_tenant=2_000)
    opened = {"acme": [OpenRequests(4, 1_900), OpenRequests(1, 100)], "bar": jobs(3)}
    orders = [] if ordered is None else [limited("acme", ordered)]
    assert of_tenants({"acme": [OpenRequests(4, 1_500)]}, settings) == []

    found = of_tenants(opened, settings, orders)

    assert [one.remedy for one in found] == (
        [] if told is None else [f"Start response workers, or raise {told}."]
    )
    assert all("acme: " in one.detail for one in found)
