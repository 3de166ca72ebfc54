"""`afterword limits`: a tenant's caps, weight and budgets, set while the fleet runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import in_force
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import with_options
from afterword.producer.cli.steering import (
    OrdersChanged,
    Terms,
    order_options,
    show_given,
    show_lifted,
    state_of,
    steered,
)
from afterword.producer.cli.terminal import echo
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder, TenantLimits
from afterword.shared.ledger.orders import Whom

_HELP = {
    "weight": "Its share of the workers beside other tenants, which have 1.",
    "most_running": "Most jobs that may run at once.",
    "most_running_per_user": "Most jobs of one user that may run at once.",
    "most_open": "Most jobs that may be open.",
    "most_bytes": "Most bytes of open requests.",
    "tenant_usd": "Most US dollars that it may spend in a period.",
    "user_usd": "Most US dollars that each of its users may spend in a period.",
    "tenant_tokens": "Most tokens that it may spend in a period.",
    "user_tokens": "Most tokens that each of its users may spend in a period.",
}


def _type_of(name: str) -> type:
    return float if name.endswith("_usd") else int


_limit_options = with_options(
    *(
        click.option(
            f"--{name.replace('_', '-')}", name, type=_type_of(name), metavar="N", help=text
        )
        for name, text in _HELP.items()
    )
)


@command(
    examples=[
        "afterword limits acme --most-open 500 --weight 2 --apply",
        "afterword limits acme --tenant-usd 500 --until 2026-12-31T00:00Z --apply",
        "afterword limits acme --lift --apply",
    ]
)
@click.argument("tenant")
@_limit_options
@click.option("--lift", is_flag=True, help="Give the tenant the caps of the settings back.")
@order_options
def limits(
    tenant: str, *, lift: bool, terms: Terms, apply: bool, as_json: bool, **given: Any
) -> None:
    """Set a tenant's caps, weight and budgets at once.

    No worker is restarted. Limits that are not named stay as they were; for those never set, the
    settings count. All are one order: --for, --until and --reason count for each of them. With
    several shards, --most-running is for all together, --most-open and --most-bytes are for each.
    Without a limit, the tenant's own are shown. It is recorded in the audit log.
    """
    wanted = TenantLimits(**given)
    if lift and wanted.set_ones():
        raise click.UsageError("--lift cannot be combined with limits")
    if apply and not lift and not wanted.set_ones():
        raise click.UsageError("give a limit, or --lift")
    if lift:
        show_lifted(asyncio.run(_lift(tenant, terms.by, apply=apply)), as_json=as_json)
    elif wanted.set_ones():
        before, given_now = asyncio.run(_limit(tenant, wanted, terms, apply=apply))
        show_given(given_now, as_json=as_json)
        _tell_of_one_end(before, given_now.orders[0], wanted)
    else:
        _show(asyncio.run(_lift(tenant, terms.by, apply=False)), as_json=as_json)


def _show(found: OrdersChanged, *, as_json: bool) -> None:
    if as_json:
        render.json_record(found)
    elif found.orders:
        render.orders(found.orders)
    else:
        echo("no limits of its own: the settings count")


def _tell_of_one_end(
    before: Sequence[SteeringOrder], now: SteeringOrder, wanted: TenantLimits
) -> None:
    """Say that limits which were set before have another end now."""
    for old in before:
        kept = (old.limits or TenantLimits()).set_ones().keys() - wanted.set_ones().keys()
        if kept and old.until != now.until:
            echo(f"This is also when {', '.join(sorted(kept))} ends, set before.", err=True)


async def _limit(
    tenant: str, wanted: TenantLimits, terms: Terms, *, apply: bool
) -> tuple[Sequence[SteeringOrder], OrdersChanged]:
    """Return the limits that the tenant had, and those that it has now."""
    async with AsyncOperator(by=terms.by) as operator:
        steering = steered(operator, apply=apply)
        before = await in_force(steering, [OrderKind.LIMITS], Whom(tenant))
        given = await steering.limit(
            tenant, wanted, reason=terms.reason, for_s=terms.for_s, until=terms.until
        )
    return before, OrdersChanged(state_of(apply=apply), [given])


async def _lift(tenant: str, by: str | None, *, apply: bool) -> OrdersChanged:
    async with AsyncOperator(by=by) as operator:
        steering = steered(operator, apply=apply)
        found = await in_force(steering, [OrderKind.LIMITS], Whom(tenant))
        await steering.lift_limits(tenant)
    return OrdersChanged(state_of(apply=apply), found)
