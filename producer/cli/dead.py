"""`afterword dead`: the dead letters, listed, shown, replayed, discarded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
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
@json_option
def replay(*, turn_ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Put dead letters back into their lanes; replaying twice does no more than once."""
    found = _each(turn_ids, every=every, word="replayed", act=lambda upkeep: upkeep.replay)
    _tell(found, as_json=as_json)


@dead.command()
@click.argument("turn_ids", nargs=-1, required=True)
@click.confirmation_option(prompt="They will never be stored. Go on?")
@json_option
def discard(*, turn_ids: tuple[str, ...], as_json: bool) -> None:
    """Give dead letters up for good."""
    found = _each(turn_ids, every=False, word="discarded", act=lambda upkeep: upkeep.discard)
    _tell(found, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Act:
    """What became of one letter; `error` says why nothing did."""

    id: str
    outcome: str
    error: str | None = None


def _each(
    turn_ids: tuple[str, ...],
    *,
    every: bool,
    word: str,
    act: Callable[[Upkeep], Callable[[str], Awaitable[None]]],
) -> list[_Act]:
    if bool(turn_ids) == every:
        raise click.UsageError("name the turns, or say --all")

    async def work(upkeep: Upkeep) -> list[_Act]:
        names = turn_ids or [letter.id for letter in await _letters(upkeep, None)]
        return [await _one(name, word, act(upkeep)) for name in names]

    return _with_ledger(work)


async def _one(name: str, word: str, act: Callable[[str], Awaitable[None]]) -> _Act:
    try:
        await act(name)
    except AfterwordError as error:
        return _Act(name, "refused", str(error))
    return _Act(name, word)


def _tell(found: list[_Act], *, as_json: bool) -> None:
    """Say what became of each letter; exit with 1 if something did not work."""
    if as_json:
        _print_json(found)
    else:
        for one in found:
            click.echo(f"{one.id}: {one.error or one.outcome}", err=one.error is not None)
    if any(one.error for one in found):
        raise click.exceptions.Exit(1)


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
