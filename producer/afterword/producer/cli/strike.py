"""`afterword strike`: blocks or slows one customer, or lifts that."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import in_force
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, NumberRange
from afterword.producer.cli.steering import (
    OrdersChanged,
    Terms,
    order_options,
    show_given,
    show_lifted,
    state_of,
    steered,
)
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.orders import Whom


@command(
    examples=[
        'afterword strike acme --reason "unpaid" --apply',
        "afterword strike acme --user user_42 --per-minute 6 --for 1h --apply",
        "afterword strike acme --lift --apply",
    ]
)
@click.argument("tenant")
@click.option("--user", "user_id", metavar="USER_ID", help="Only this user of the tenant.")
@click.option(
    "--per-minute",
    type=NumberRange(0.001, 60_000),
    metavar="N",
    help="Slow them: at most this many replies begin in a minute.",
)
@click.option(
    "--every", "every_s", type=Duration(), help="Slow them: a reply begins this long after another."
)
@click.option("--lift", is_flag=True, help="Lift the block or the slowdown.")
@order_options
def strike(  # noqa: PLR0913 its options
    tenant: str,
    user_id: str | None,
    per_minute: float | None,
    every_s: float | None,
    *,
    lift: bool,
    terms: Terms,
    apply: bool,
    as_json: bool,
) -> None:
    """Block or slow down a tenant or one of its users.

    Who is blocked is refused each new request (error Blocked, HTTP 403), and what is queued of
    theirs waits, replies and memories. With --per-minute or --every their replies are only slowed.
    What runs is finished, and erasures go on. It is recorded in the audit log.
    """
    if sum((per_minute is not None, every_s is not None, lift)) > 1:
        raise click.UsageError("give one of --per-minute, --every and --lift")
    if lift:
        changed = asyncio.run(_lift(tenant, user_id, terms.by, apply=apply))
        show_lifted(changed, as_json=as_json)
        return
    pace_s = 60 / per_minute if per_minute else every_s
    show_given(asyncio.run(_strike(tenant, user_id, pace_s, terms, apply=apply)), as_json=as_json)


async def _strike(
    tenant: str, user_id: str | None, every_s: float | None, terms: Terms, *, apply: bool
) -> OrdersChanged:
    async with AsyncOperator(by=terms.by) as operator:
        given = await steered(operator, apply=apply).strike(
            tenant,
            user_id=user_id,
            every_s=every_s,
            reason=terms.reason,
            for_s=terms.for_s,
            until=terms.until,
        )
    return OrdersChanged(state_of(apply=apply), [given])


async def _lift(tenant: str, user_id: str | None, by: str | None, *, apply: bool) -> OrdersChanged:
    async with AsyncOperator(by=by) as operator:
        steering = steered(operator, apply=apply)
        kinds = [OrderKind.BLOCK, OrderKind.SLOW]
        lifted = await in_force(steering, kinds, Whom(tenant, user_id))
        await steering.lift_strike(tenant, user_id=user_id)
    return OrdersChanged(state_of(apply=apply), lifted)
