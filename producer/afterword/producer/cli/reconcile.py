"""`afterword reconcile`: looks for jobs and turns that are not where they must be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option
from afterword.shared.ledger.records import Inconsistency


@command(
    exit_1="there are inconsistencies, fixed or not",
    examples=["afterword reconcile", "afterword reconcile --fix"],
)
@click.option("--fix", is_flag=True, help="Put jobs and turns back where they belong.")
@json_option
def reconcile(*, fix: bool, as_json: bool) -> None:
    """Check that every job and turn is where its state says.

    One worker does this every AFTERWORD_RECONCILE_S and fixes what it finds. An inconsistency is a
    bug of Afterword, or someone wrote to this Redis by hand: please report it. Without --fix,
    nothing is changed.
    """
    found = asyncio.run(_inconsistencies(fix=fix))
    if as_json:
        render.json_record(found)
    else:
        render.inconsistencies(found, fixed=fix)
    if found:
        raise click.exceptions.Exit(1)


async def _inconsistencies(*, fix: bool) -> Sequence[Inconsistency]:
    async with AsyncOperator() as operator:
        return [found async for found in operator.inconsistencies(fix=fix)]
