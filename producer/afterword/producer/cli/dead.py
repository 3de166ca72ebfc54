"""`afterword dead`: the dead letters, listed, shown, exported, discarded."""

from __future__ import annotations

import asyncio
import json

import click

from afterword.producer.admin.async_admin import AsyncOperator, DiscardResult
from afterword.producer.cli import replay
from afterword.producer.cli.options import selecting, something
from afterword.producer.cli.render import age, json_option, plain, print_json, table
from afterword.shared.clock import utc_now
from afterword.shared.ledger.dead_letter_records import DeadLetter, DeadLetterFilter, ReplayState

_MOST_SHOWN = 100


@click.group()
def dead() -> None:
    """List, show, replay and discard what was given up: memories of turns, and replies."""


for command in replay.COMMANDS:
    dead.add_command(command)


@dead.command("list")
@selecting
@json_option
def list_(*, chosen: DeadLetterFilter, as_json: bool) -> None:
    """List dead letters, oldest burial first, without what was said.

    Without --limit, a table shows the first 100; --json prints all.
    """
    letters = asyncio.run(_list(chosen, None if as_json or chosen.limit else _MOST_SHOWN + 1))
    if as_json:
        print_json(letters)
        return
    _table(letters[: chosen.limit or _MOST_SHOWN])
    if not chosen.limit and len(letters) > _MOST_SHOWN:
        click.echo("... and more: say --limit, or a filter", err=True)


def _table(letters: list[DeadLetter]) -> None:
    now = utc_now()
    table(
        ("letter", "kind", "tenant", "user", "reason", "class", "attempts", "replays", "buried"),
        [
            (one.id, one.kind, one.tenant, one.user_id, one.code, one.fault, one.attempts,
             one.replays, age((now - one.buried_at).total_seconds()) + " ago")
            for one in letters
        ],
    )  # fmt: skip


@dead.command()
@click.argument("letter_id")
@json_option
def show(*, letter_id: str, as_json: bool) -> None:
    """Show one dead letter whole, with what was said."""
    letter = asyncio.run(_show(letter_id))
    if as_json:
        print_json(letter)
        return
    for name, value in plain(letter).items():
        click.echo(f"{name}: {value}")


@dead.command()
@selecting
@click.option("--with-content", is_flag=True, help="With what was said: mind who may read it.")
def export(*, chosen: DeadLetterFilter, with_content: bool) -> None:
    """Print dead letters as JSON, one a line."""
    asyncio.run(_export(chosen, with_content=with_content))


@dead.command()
@click.argument("ids", metavar="[LETTER_ID]...", nargs=-1)
@selecting
@click.option("--all", "every", is_flag=True, help="All dead letters.")
@click.option("--apply", is_flag=True, help="Do it; without, only say what would be done.")
@click.option("--by", help="Who stands in the audit; you on this machine, unless said.")
@json_option
def discard(
    *, chosen: DeadLetterFilter, every: bool, apply: bool, by: str | None, as_json: bool
) -> None:
    """Give dead letters up for good; a dry run unless told to --apply."""
    found = asyncio.run(_discard(something(chosen, every=every), by, apply=apply))
    if as_json:
        print_json(found)
    elif found.state is ReplayState.DRY:
        click.echo(f"would discard: {found.dead_letters}, for good")
        click.echo("Nothing was changed. Add --apply to do it.")
    else:
        click.echo(f"discarded: {found.discarded}")
    if found.refused:
        click.echo(f"{found.refused} were no dead letters any more", err=True)
        raise click.exceptions.Exit(1)


async def _list(chosen: DeadLetterFilter, most: int | None) -> list[DeadLetter]:
    letters = []
    async with AsyncOperator() as operator:
        async for letter in operator.dead_letters(chosen):
            letters.append(letter)
            if len(letters) == most:
                break
    return letters


async def _show(letter_id: str) -> DeadLetter:
    async with AsyncOperator() as operator:
        return await operator.dead_letter(letter_id)


async def _export(chosen: DeadLetterFilter, *, with_content: bool) -> None:
    async with AsyncOperator() as operator:
        async for letter in operator.dead_letters(chosen, content=with_content):
            click.echo(json.dumps(plain(letter), ensure_ascii=False))


async def _discard(chosen: DeadLetterFilter, by: str | None, *, apply: bool) -> DiscardResult:
    async with AsyncOperator(by=by) as operator:
        return await operator.discard(chosen, apply=apply)
