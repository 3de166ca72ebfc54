"""`afterword forget`: erase a user everywhere, and show the receipt."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.cli.render import json_option, plain, print_json, tenant_option
from afterword.producer.cli.replay import by_option
from afterword.shared.ledger.records import ErasureState

_LOOK_EVERY_S = 0.5
_LONGEST_WAIT_S = 86_400.0


@click.command()
@click.argument("user_id")
@tenant_option
@click.option("--apply", is_flag=True, help="Do it, for good; without, only show how far it is.")
@click.option("--wait", "wait_s", type=click.FloatRange(0, _LONGEST_WAIT_S), default=0.0,
              metavar="SECONDS", help="Wait for its end; exit 1 if it has not come.")  # fmt: skip
@by_option
@json_option
def forget(
    *, user_id: str, tenant: str, apply: bool, wait_s: float, by: str | None, as_json: bool
) -> None:
    """Erase all that USER_ID said: jobs, replies, conversations, dead letters and memories.

    A memory worker does it at once, and once more when whatever was on its way to mem0 must have
    arrived. It cannot be undone. What the user says later is answered and remembered as ever.
    """
    found = asyncio.run(_forget(user_id, tenant, by, apply=apply, wait_s=wait_s))
    if found is None and as_json:
        print_json(None)
        raise click.exceptions.Exit(1)
    if found is None:
        click.echo(
            f"Nobody asked to forget {user_id} of {tenant}. Add --apply to erase all they said."
        )
        raise click.exceptions.Exit(1)
    if as_json:
        print_json(found)
    else:
        _show(found)
    if wait_s and found.state is not ErasureState.ERASED:
        raise click.exceptions.Exit(1)


async def _forget(
    user_id: str, tenant: str, by: str | None, *, apply: bool, wait_s: float
) -> ErasureReceipt | None:
    async with AsyncOperator(by=by) as operator:
        if apply:
            await operator.forget(user_id, tenant=tenant)
        end = asyncio.get_running_loop().time() + wait_s
        while True:
            found = await operator.erasure(user_id, tenant=tenant)
            over = found is None or found.state is ErasureState.ERASED
            if over or asyncio.get_running_loop().time() >= end:
                return found
            await asyncio.sleep(_LOOK_EVERY_S)


def _show(found: ErasureReceipt) -> None:
    for name, value in plain(found).items():
        if value is not None:
            click.echo(f"{name}: {value}")
