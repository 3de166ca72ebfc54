"""`afterword quarantine`: messages in the queues that workers dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option, limit_option
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.ledger.quarantine import MAX_KEPT, Quarantine

Result = TypeVar("Result")


@click.group()
def quarantine() -> None:
    """List and clear the notes of messages that workers could not read.

    Workers drop a message in their queues that is not one of ours, and note its size, its hash and
    a reason, never its content.
    """


@command("list", examples=["afterword quarantine list --limit 10"])
@limit_option(100, MAX_KEPT)
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List the notes of dropped messages, newest first.

    The newest 1,000 are kept. Nothing is changed.
    """
    notes = _with_quarantine(lambda notes: notes.newest(limit))
    if as_json:
        render.json_record(notes)
    else:
        render.quarantined(notes)


@command(examples=["afterword quarantine clear"])
@json_option
def clear(*, as_json: bool) -> None:
    """Delete all notes of dropped messages.

    The counts by reason in `afterword status` stay.
    """
    cleared = _with_quarantine(lambda notes: notes.clear())
    if as_json:
        render.json_record({"cleared": cleared})
    else:
        click.echo(f"cleared: {cleared}")


def _with_quarantine(work: Callable[[Quarantine], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        async with open_ledger() as ledger:
            await ledger.check()
            return await work(ledger.quarantine)

    return asyncio.run(run())


quarantine.add_command(list_)
quarantine.add_command(clear)
