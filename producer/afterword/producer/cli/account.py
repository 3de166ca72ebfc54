"""`afterword account`: what became of every turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option, late_option
from afterword.shared.ledger.account import total
from afterword.shared.ledger.records import Account


@command(examples=["afterword account", "afterword account --tenant acme --late 10m"])
@click.option(
    "--tenant", metavar="TENANT", help="Only this tenant. Default: all tenants and their sum."
)
@late_option
@json_option
def account(*, tenant: str | None, late_s: float, as_json: bool) -> None:
    """Count the turns and the late users of each tenant.

    Turns are counted by state. A user is behind while a turn of theirs waits to be stored, and
    late once that turn is older than --late. `no fact` are turns in which mem0 found none, with
    their share of those that it was given. Nothing is changed.
    """
    chosen = asyncio.run(_accounts(late_s, tenant))
    if as_json:
        render.json_record({"total": total(chosen), "tenants": chosen})
    else:
        alone = tenant is not None or len(chosen) == 1
        render.accounts(chosen if alone else [*chosen, total(chosen)], late_s)


async def _accounts(late_s: float, tenant: str | None) -> Sequence[Account]:
    async with AsyncOperator() as operator:
        return await operator.accounts(late_s=late_s, tenant=tenant)
