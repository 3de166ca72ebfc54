"""`afterword pause` and `afterword resume`: let work wait, and let it go on."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import PAUSES, Work, in_force, whom_of
from afterword.producer.cli.command import command
from afterword.producer.cli.options import apply_option, by_option, json_option
from afterword.producer.cli.steering import (
    OrdersChanged,
    Terms,
    order_options,
    show_given,
    show_lifted,
    state_of,
    steered,
)

_work_argument = click.argument("work", type=click.Choice(list(PAUSES)))
_tenant_option = click.option("--tenant", metavar="TENANT", help="Only this tenant's.")
_user_option = click.option(
    "--user", "user_id", metavar="USER_ID", help='Only this user\'s, of --tenant or "default".'
)


@command(
    examples=[
        'afterword pause memories --for 2h --reason "mem0 migrates" --apply',
        "afterword pause replies --tenant acme",
    ]
)
@_work_argument
@_tenant_option
@_user_option
@order_options
def pause(
    work: Work,
    tenant: str | None,
    user_id: str | None,
    *,
    terms: Terms,
    apply: bool,
    as_json: bool,
) -> None:
    """Let replies, or writes to memory, wait.

    Those of everybody, of a tenant or of one user. Requests are still accepted, and what runs is
    finished. What waits spends no attempt, but its deadline goes on. Erasures go on, too. It is
    recorded in the audit log.
    """
    show_given(asyncio.run(_pause(work, tenant, user_id, terms, apply=apply)), as_json=as_json)


@command(examples=["afterword resume memories --apply", "afterword resume replies --tenant acme"])
@_work_argument
@_tenant_option
@_user_option
@apply_option
@by_option
@json_option
def resume(
    work: Work,
    tenant: str | None,
    user_id: str | None,
    *,
    apply: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Lift a pause of exactly this scope.

    What waited comes back within seconds. It is recorded in the audit log.
    """
    changed = asyncio.run(_resume(work, tenant, user_id, by, apply=apply))
    show_lifted(changed, as_json=as_json)


async def _pause(
    work: Work, tenant: str | None, user_id: str | None, terms: Terms, *, apply: bool
) -> OrdersChanged:
    async with AsyncOperator(by=terms.by) as operator:
        given = await steered(operator, apply=apply).pause(
            work,
            tenant=tenant,
            user_id=user_id,
            reason=terms.reason,
            for_s=terms.for_s,
            until=terms.until,
        )
    return OrdersChanged(state_of(apply=apply), [given])


async def _resume(
    work: Work, tenant: str | None, user_id: str | None, by: str | None, *, apply: bool
) -> OrdersChanged:
    async with AsyncOperator(by=by) as operator:
        steering = steered(operator, apply=apply)
        lifted = await in_force(steering, [PAUSES[work]], whom_of(tenant, user_id))
        await steering.resume(work, tenant=tenant, user_id=user_id)
    return OrdersChanged(state_of(apply=apply), lifted)
