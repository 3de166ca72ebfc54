"""`afterword audit`: what operators did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import after_option, json_option, limit_option, tell_of_more
from afterword.shared.ledger.dead_letter_records import AuditEntry


@command(
    examples=[
        "afterword audit --limit 20",
        "afterword audit --by ann@desk --action discard --json",
    ]
)
@click.option("--by", metavar="NAME", help="Only what this operator did.")
@click.option("--action", metavar="ACTION", help="Only this action, such as replay or gate_shut.")
@limit_option(100, 100_000)
@after_option("the entry")
@json_option
def audit(
    *, by: str | None, action: str | None, limit: int, after: str | None, as_json: bool
) -> None:
    """Show what operators did, newest first.

    Replays, discards and erasures are recorded with the time, the operator, the filter and the
    outcome. The newest 100,000 entries are kept. Nothing is changed.
    """
    entries = asyncio.run(_audit(limit + 1, after, by, action))
    show = render.json_record if as_json else render.audit
    show(entries[:limit])
    if len(entries) > limit:
        tell_of_more(entries[limit - 1].id)


async def _audit(
    limit: int, after: str | None, by: str | None, action: str | None
) -> Sequence[AuditEntry]:
    async with AsyncOperator() as operator:
        return await operator.audit(limit, after=after, by=by, action=action)
