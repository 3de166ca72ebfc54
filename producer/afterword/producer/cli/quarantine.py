"""`afterword quarantine`: messages in the queues that workers dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    after_option,
    apply_option,
    json_option,
    limit_option,
    tell_of_more,
)
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.arguments import check_event_id
from afterword.shared.ledger.dead_letter_records import ReplayState
from afterword.shared.ledger.quarantine import MAX_NOTES, Quarantine
from afterword.shared.plurals import quantity

Result = TypeVar("Result")


@click.group()
def quarantine() -> None:
    """List and clear notes of dropped messages.

    Workers drop a message in their queues that they cannot read, and note its size, its hash and a
    reason, never its content.
    """


@command("list", examples=["afterword quarantine list --limit 10"])
@limit_option(100, MAX_NOTES)
@after_option("the note")
@json_option
def list_(*, limit: int, after: str | None, as_json: bool) -> None:
    """List the notes of dropped messages, newest first.

    The newest 1,000 are kept. Nothing is changed.
    """
    place = None if after is None else check_event_id("after", after)
    notes = _with_quarantine(lambda notes: notes.newest(limit + 1, after=place))
    show = render.json_record if as_json else render.quarantined
    show(notes[:limit])
    if len(notes) > limit:
        tell_of_more(notes[limit - 1].id)


@command(examples=["afterword quarantine clear", "afterword quarantine clear --apply"])
@apply_option
@json_option
def clear(*, apply: bool, as_json: bool) -> None:
    """Delete all notes of dropped messages.

    The counts by reason in `afterword status` stay. Without --apply, only the number of notes is
    shown.
    """
    count = _with_quarantine(_clear if apply else _count, writes=apply)
    if as_json:
        state = ReplayState.DONE if apply else ReplayState.DRY
        render.json_record({"state": state, "notes": count})
    elif apply:
        echo(f"deleted: {quantity(count, 'note')}")
    else:
        echo(f"would delete: {quantity(count, 'note')}")
        tell_of_dry_run("delete them")


async def _clear(notes: Quarantine) -> int:
    return await notes.clear()


async def _count(notes: Quarantine) -> int:
    return len(await notes.newest())


def _with_quarantine(
    work: Callable[[Quarantine], Awaitable[Result]], *, writes: bool = False
) -> Result:
    async def run() -> Result:
        async with open_ledger() as checked:
            ledger = await (checked.get() if writes else checked.for_reading())
            return await work(ledger.quarantine)

    return asyncio.run(run())


quarantine.add_command(list_)
quarantine.add_command(clear)
