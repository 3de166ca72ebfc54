"""`afterword quarantine`: what was in the queues and was no hint."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from afterword.producer.cli.render import age, json_option, print_json, table
from afterword.shared.clock import utc_now
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.quarantine import MOST_KEPT, Quarantine

Result = TypeVar("Result")


@click.group()
def quarantine() -> None:
    """List and clear the notes of messages that workers could not read."""


@quarantine.command("list")
@click.option("--limit", default=100, show_default=True, help="Most notes to list.",
              type=click.IntRange(1, MOST_KEPT))  # fmt: skip
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List what was found, newest first: never what stood in it."""
    notes = _with_quarantine(lambda notes: notes.newest(limit))
    if as_json:
        print_json(notes)
        return
    now = utc_now()
    table(
        ("found", "queue", "reason", "task", "bytes", "sha256"),
        [
            (age((now - note.at).total_seconds()) + " ago", note.found.queue, note.found.reason,
             note.found.task or "-", note.found.size, note.found.sha256)
            for note in notes
        ],
    )  # fmt: skip


@quarantine.command()
@json_option
def clear(*, as_json: bool) -> None:
    """Forget the notes; what was counted stays counted."""
    cleared = _with_quarantine(lambda notes: notes.clear())
    if as_json:
        print_json({"cleared": cleared})
    else:
        click.echo(f"cleared: {cleared}")


def _with_quarantine(work: Callable[[Quarantine], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        settings = settings_in_use()
        async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
            await ledger.check()
            return await work(ledger.quarantine)

    return asyncio.run(run())
