"""`afterword dead`: the dead letters, listed, shown, replayed, discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import TypeVar

import click

from producer.cli.show import age, as_json, json_option, plain, table
from shared.clock import utc_now
from shared.discovery import settings_in_use
from shared.errors import AfterwordError
from shared.ledger.ledger import Ledger
from shared.ledger.records import DeadLetter
from shared.ledger.upkeep import Upkeep

Result = TypeVar("Result")

#: What a list leaves out: content is shown only when one letter is asked for.
CONTENT = frozenset({"message", "reply"})


@click.group()
def dead() -> None:
    """List, show, replay and discard the turns that could not be stored."""


@dead.command("list")
@click.option("--limit", default=100, show_default=True, help="Most letters to list.")
@json_option
def list_(*, limit: int, as_json: bool) -> None:
    """List the dead letters, oldest first, without their content."""
    letters = _with_ledger(lambda upkeep: _letters(upkeep, limit))
    if as_json:
        _print_json([_without_content(letter) for letter in letters])
        return
    now = utc_now()
    table(
        ("turn", "tenant", "user", "reason", "blame", "attempts", "buried"),
        [
            (one.id, one.tenant, one.user_id, one.code, one.blame, one.attempts,
             age((now - one.buried_at).total_seconds()) + " ago")
            for one in letters
        ],
    )  # fmt: skip


@dead.command()
@click.argument("turn_id")
@json_option
def show(*, turn_id: str, as_json: bool) -> None:
    """Show one dead letter whole, with what was said."""
    letter = _with_ledger(lambda upkeep: upkeep.dead_letter(turn_id))
    if as_json:
        _print_json(letter)
        return
    for name, value in plain(letter).items():
        click.echo(f"{name}: {value}")


@dead.command()
@click.argument("turn_ids", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All dead letters.")
def replay(*, turn_ids: tuple[str, ...], every: bool) -> None:
    """Put dead letters back into their lanes; replaying twice does no more than once."""
    _each(turn_ids, every=every, word="replayed", act=lambda upkeep: upkeep.replay)


@dead.command()
@click.argument("turn_ids", nargs=-1, required=True)
@click.confirmation_option(prompt="They will never be stored. Go on?")
def discard(*, turn_ids: tuple[str, ...]) -> None:
    """Give dead letters up for good."""
    _each(turn_ids, every=False, word="discarded", act=lambda upkeep: upkeep.discard)


def _each(
    turn_ids: tuple[str, ...],
    *,
    every: bool,
    word: str,
    act: Callable[[Upkeep], Callable[[str], Awaitable[None]]],
) -> None:
    if bool(turn_ids) == every:
        raise click.UsageError("name the turns, or say --all")

    async def work(upkeep: Upkeep) -> int:
        names = turn_ids or [letter.id for letter in await _letters(upkeep, None)]
        return sum([await _one(name, word, act(upkeep)) for name in names])

    failed = _with_ledger(work)
    if failed:
        raise click.exceptions.Exit(1)


async def _one(name: str, word: str, act: Callable[[str], Awaitable[None]]) -> int:
    """Act on one letter, say what came of it, and return 1 if it failed."""
    try:
        await act(name)
    except AfterwordError as error:
        click.echo(f"{name}: {error}", err=True)
        return 1
    click.echo(f"{name}: {word}")
    return 0


async def _letters(upkeep: Upkeep, limit: int | None) -> list[DeadLetter]:
    letters = [letter async for letter in upkeep.dead_letters()]
    return list(islice(letters, limit))


def _without_content(letter: DeadLetter) -> dict[str, object]:
    return {name: value for name, value in plain(letter).items() if name not in CONTENT}


def _with_ledger(work: Callable[[Upkeep], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        settings = settings_in_use()
        async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
            await ledger.check()
            return await work(ledger.upkeep)

    return asyncio.run(run())


_print_json = as_json
