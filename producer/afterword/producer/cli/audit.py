"""`afterword audit`: what operators did."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option, limit_option
from afterword.shared.ledger.dead_letter_records import AuditEntry


@command(examples=["afterword audit --limit 20", "afterword audit --json"])
@limit_option(100, 100_000)
@json_option
def audit(*, limit: int, as_json: bool) -> None:
    """Show what operators did, newest first.

    Replays, discards and erasures are recorded with the time, the operator, the filter and the
    outcome. The newest 100,000 entries are kept. Nothing is changed.
    """
    entries = asyncio.run(_audit(limit))
    if as_json:
        render.json_record(entries)
    else:
        render.audit(entries)


async def _audit(limit: int) -> Sequence[AuditEntry]:
    async with AsyncOperator() as operator:
        return await operator.audit(limit)
