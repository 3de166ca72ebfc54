"""`afterword limits`: a tenant's caps, weight and budgets, set while the fleet runs."""

from __future__ import annotations

import asyncio
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
from afterword.shared.ledger.order_records import OrderKind, TenantLimits
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
    """Set a tenant's caps, weight and budgets at once, without a restart.

    Limits that are not named stay as they were; for those never set, the settings count. Caps on
    what runs are divided among the shards, those on what is open count one shard. Without a limit,
    the tenant's own are shown. It is recorded in the audit log.
    """
    wanted = TenantLimits(**given)
    if lift and wanted.set_ones():
        raise click.UsageError("--lift cannot be combined with limits")
    if apply and not lift and not wanted.set_ones():
        raise click.UsageError("give a limit, or --lift")
    if lift:
        show_lifted(asyncio.run(_lift(tenant, terms.by, apply=apply)), as_json=as_json)
    elif wanted.set_ones():
        show_given(asyncio.run(_limit(tenant, wanted, terms, apply=apply)), as_json=as_json)
    else:
        _show(asyncio.run(_lift(tenant, terms.by, apply=False)), as_json=as_json)


def _show(found: OrdersChanged, *, as_json: bool) -> None:
    if as_json:
        render.json_record(found)
    elif found.orders:
        render.orders(found.orders)
    else:
        echo("no limits of its own: the settings count")


async def _limit(tenant: str, wanted: TenantLimits, terms: Terms, *, apply: bool) -> OrdersChanged:
    async with AsyncOperator(by=terms.by) as operator:
        given = await steered(operator, apply=apply).limit(
            tenant, wanted, reason=terms.reason, for_s=terms.for_s, until=terms.until
        )
    return OrdersChanged(state_of(apply=apply), [given])


async def _lift(tenant: str, by: str | None, *, apply: bool) -> OrdersChanged:
    async with AsyncOperator(by=by) as operator:
        steering = steered(operator, apply=apply)
        found = await in_force(steering, [OrderKind.LIMITS], Whom(tenant))
        await steering.lift_limits(tenant)
    return OrdersChanged(state_of(apply=apply), found)
