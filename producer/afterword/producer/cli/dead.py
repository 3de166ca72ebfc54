"""`afterword dead`: dead letters, listed, shown, exported, buried, discarded, replayed."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import click

from afterword.producer.admin.async_admin import AsyncOperator, DiscardResult
from afterword.producer.cli import dead_replay, render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    after_option,
    all_option,
    apply_option,
    by_option,
    check_something_chosen,
    dead_filter,
    ids_argument,
    json_option,
    tell_of_more,
)
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.producer.client.sync_client import Producer
from afterword.shared.ledger.dead_letter_records import DeadLetter, DeadLetterFilter, ReplayState
from afterword.shared.lifecycle import TurnState
from afterword.shared.plurals import quantity

_MOST_SHOWN = 100


@click.group()
def dead() -> None:
    """List, show, replay, bury and discard dead letters.

    A dead letter is a turn that could not be stored in memory (kind "memory"), or a job that failed
    (kind "reply"). Its id is the id of its job.
    """


@command(
    "list",
    examples=["afterword dead list", "afterword dead list --since 2h --code invalid_request"],
)
@dead_filter
@after_option("the dead letter")
@json_option
def list_(*, chosen: DeadLetterFilter, after: str | None, as_json: bool) -> None:
    """List dead letters without their content, oldest burial first.

    Without --limit, the table ends after 100; --json prints all. Nothing is changed.
    """
    if as_json:
        asyncio.run(_print_json(chosen, after))
        return
    most = chosen.limit or _MOST_SHOWN
    found = asyncio.run(_list(replace(chosen, limit=None), most + 1, after))
    render.dead_letters(found[:most])
    if len(found) > most:
        tell_of_more(found[most - 1].id)


@command(examples=["afterword dead show JOB_ID"])
@click.argument("job_id")
@json_option
def show(*, job_id: str, as_json: bool) -> None:
    """Show one dead letter, with its message and reply.

    This prints what the user said: mind who can see your terminal. Nothing is changed.
    """
    found = asyncio.run(_show(job_id))
    if as_json:
        render.json_record(found)
    else:
        render.record(found)


@command(examples=["afterword dead export > dead.jsonl", "afterword dead export --tenant acme"])
@dead_filter
@click.option("--with-content", is_flag=True, help="Include messages and replies: what users said.")
def export(*, chosen: DeadLetterFilter, with_content: bool) -> None:
    """Print dead letters as JSON, one per line.

    Messages and replies are left out unless --with-content is given. Nothing is changed.
    """
    asyncio.run(_export(chosen, with_content=with_content))


@command(
    exit_1="its turn does not wait to be stored, or a memory worker is about to store it",
    examples=["afterword dead bury JOB_ID", "afterword dead bury JOB_ID --apply"],
)
@click.argument("job_id")
@apply_option
@by_option
def bury(*, job_id: str, apply: bool, by: str | None) -> None:
    """Make a turn that waits to be stored a dead letter.

    For a turn that keeps the later turns of its user waiting: they are stored without it, and it
    can be replayed. Without --apply, only its state is shown.
    """
    if apply:
        asyncio.run(_bury(job_id, by))
        echo("buried: 1 turn")
        return
    with Producer() as producer:
        state = producer.job(job_id).status().turn
    echo(f"the turn is {state}")
    if state is not TurnState.PENDING:
        echo("Only a pending turn can be buried.", err=True)
        raise click.exceptions.Exit(1)
    tell_of_dry_run("bury it")


@command(
    exit_1="some of them were no dead letters any more",
    examples=["afterword dead discard JOB_ID --apply", "afterword dead discard --older-than 30d"],
)
@ids_argument
@dead_filter
@all_option
@apply_option
@by_option
@json_option
def discard(
    *, chosen: DeadLetterFilter, every: bool, apply: bool, by: str | None, as_json: bool
) -> None:
    """Give dead letters up for good.

    Choose them by id, by filters, or with --all. A discarded turn is never stored in memory; a
    discarded job is never run again. Without --apply, only their number is shown.
    """
    check_something_chosen(chosen, every=every)
    found = asyncio.run(_discard(chosen, by, apply=apply))
    if as_json:
        render.json_record(found)
    elif found.state is ReplayState.DRY:
        echo(f"would discard: {quantity(found.dead_letters, 'dead letter')}")
        tell_of_dry_run("discard them for good")
    else:
        echo(f"discarded: {quantity(found.discarded, 'dead letter')}")
    if found.refused:
        echo(f"{found.refused} were no dead letters any more", err=True)
        raise click.exceptions.Exit(1)


async def _list(chosen: DeadLetterFilter, most: int, after: str | None) -> list[DeadLetter]:
    found = []
    async with AsyncOperator() as operator:
        async for letter in operator.dead_letters(chosen, after=after):
            found.append(letter)
            if len(found) == most:
                break
    return found


async def _print_json(chosen: DeadLetterFilter, after: str | None) -> None:
    async with AsyncOperator() as operator:
        await render.json_array(operator.dead_letters(chosen, after=after))


async def _show(job_id: str) -> DeadLetter:
    async with AsyncOperator() as operator:
        return await operator.dead_letter(job_id)


async def _export(chosen: DeadLetterFilter, *, with_content: bool) -> None:
    async with AsyncOperator() as operator:
        async for letter in operator.dead_letters(chosen, content=with_content):
            render.json_line(letter)


async def _bury(job_id: str, by: str | None) -> None:
    async with AsyncOperator(by=by) as operator:
        await operator.bury(job_id)


async def _discard(chosen: DeadLetterFilter, by: str | None, *, apply: bool) -> DiscardResult:
    async with AsyncOperator(by=by) as operator:
        return await operator.discard(chosen, apply=apply)


for _command in (list_, show, export, bury, discard, *dead_replay.COMMANDS):
    dead.add_command(_command)
