"""`afterword forget`: erases a user everywhere, and shows the receipt."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.erasure import ErasureReceipt
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    Duration,
    apply_option,
    by_option,
    json_option,
    tenant_option,
)
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.shared.ledger.records import ErasureState

_LOOK_EVERY_S = 0.5


@command(
    exit_1="nobody asked to forget this user; with --wait: the erasure is not complete in time",
    examples=[
        "afterword forget user_42 --tenant acme",
        "afterword forget user_42 --tenant acme --apply --wait 5m",
    ],
)
@click.argument("user_id")
@tenant_option
@apply_option
@click.option(
    "--wait",
    "wait_s",
    type=Duration(),
    default="0s",
    help="Wait this long for the erasure to complete, such as 5m.",
)
@by_option
@json_option
def forget(
    *, user_id: str, tenant: str, apply: bool, wait_s: float, by: str | None, as_json: bool
) -> None:
    """Erase a user everywhere, or show how far that is.

    With --apply, a memory worker deletes the user's jobs, replies, conversations, dead letters and
    memories, and does so once more when no write to memory can still be under way. It cannot be
    undone. What the user says afterwards is answered and remembered again. Without --apply, the
    receipt of the last erasure is shown.
    """
    found = asyncio.run(_forget(user_id, tenant, by, apply=apply, wait_s=wait_s))
    if as_json:
        render.json_record(found)
    elif found is None:
        echo(f"Nobody asked to forget user {user_id} of tenant {tenant}.")
        tell_of_dry_run("erase this user")
    else:
        render.record(found)
    if found is None or (wait_s and found.state is not ErasureState.ERASED):
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
