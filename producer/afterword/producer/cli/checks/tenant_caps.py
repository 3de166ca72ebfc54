"""Which tenants may submit no more, and whether a setting or an operator's order says so."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from afterword.producer.cli.checks.finding import Finding, fail, warn
from afterword.shared.environment import variable
from afterword.shared.ledger.order_records import SteeringOrder, TenantLimits
from afterword.shared.ledger.tenants import OpenRequests
from afterword.shared.settings import Settings


class _Cap(NamedTuple):
    """A cap of each tenant: what it counts, its setting, and what an order sets in its place."""

    counts: str
    setting: str
    ordered: str


_JOBS = _Cap("open jobs", "max_open_per_tenant", "most_open")
_BYTES = _Cap("bytes of open requests", "max_bytes_per_tenant", "most_bytes")


class _Reached(NamedTuple):
    """A cap that is reached: how much it lets, and whether an order says so."""

    cap: _Cap
    most: int
    by_order: bool


def of_tenants(
    opened: Mapping[str, Sequence[OpenRequests]],
    settings: Settings,
    orders: Sequence[SteeringOrder] = (),
) -> list[Finding]:
    """Judge which tenants a shard refuses; if it is all of them, nobody may submit.

    `opened` is what of each tenant is open in each shard: its caps are of one shard. What an order
    sets counts, in place of the setting.
    """
    ordered = {order.tenant: order.limits for order in orders if order.limits is not None}
    full: dict[_Reached, list[str]] = defaultdict(list)
    for tenant, shards in opened.items():
        if reached := _reached(shards, settings, ordered.get(tenant, TenantLimits())):
            full[reached].append(tenant)
    judge = fail if sum(map(len, full.values())) == len(opened) else warn
    return [
        judge("room", f"{_named(tenants)}: {_detail(reached)}", _remedy(reached))
        for reached, tenants in sorted(full.items(), key=lambda one: one[0].by_order)
    ]


def _reached(
    shards: Sequence[OpenRequests], settings: Settings, limits: TenantLimits
) -> _Reached | None:
    """Return the cap because of which a shard refuses a tenant, None if there is none."""
    for cap in (_JOBS, _BYTES):
        ordered = getattr(limits, cap.ordered)
        most = getattr(settings, cap.setting) if ordered is None else ordered
        if most and any(_is_full(cap, most, shard) for shard in shards):
            return _Reached(cap, most, ordered is not None)
    return None


def _is_full(cap: _Cap, most: int, shard: OpenRequests) -> bool:
    """Return whether a shard takes no more; of bytes, no request as long as those that are open."""
    if cap is _JOBS:
        return shard.jobs >= most
    return shard.jobs > 0 and shard.bytes + shard.bytes / shard.jobs > most


def _detail(reached: _Reached) -> str:
    whose = "an order lets it have" if reached.by_order else "it may have"
    much = f"{whose} {reached.most:,} {reached.cap.counts}"
    return f"{much}, and has them: new ones are refused (QueueFull)"


def _remedy(reached: _Reached) -> str:
    option = f"--{reached.cap.ordered.replace('_', '-')} of afterword limits"
    cap = option if reached.by_order else variable(reached.cap.setting)
    return f"Start response workers, or raise {cap}."


def _named(tenants: Sequence[str]) -> str:
    return ", ".join(tenants[:3]) + (" and others" if tenants[3:] else "")
