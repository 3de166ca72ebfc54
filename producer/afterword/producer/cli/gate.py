"""`afterword gate`: shows which providers are not called, stops calls and lets them begin again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, by_option, json_option
from afterword.producer.cli.terminal import echo
from afterword.shared.ledger.records import Gate

_name_argument = click.argument("name", metavar="GATE")


@click.group()
def gate() -> None:
    """List, open and shut the gates before Claude and mem0.

    A gate stops all calls of all workers to one provider: "claude/MODEL" for each model, "recall"
    for searches in mem0, "remember" for writes to it. Workers shut and open gates by themselves.
    """


@command("list", examples=["afterword gate list", "afterword gate list --json"])
@json_option
def list_(*, as_json: bool) -> None:
    """Show the gates that are not open: why, since when, until when. Nothing is changed."""
    found = asyncio.run(_list())
    if as_json:
        render.json_record(found)
    elif found:
        render.gates(found)
    else:
        echo("all gates are open")


@command(
    "shut",
    examples=[
        'afterword gate shut remember --reason "mem0 migrates" --for 2h',
        "afterword gate shut claude/claude-sonnet-5-5",
    ],
)
@_name_argument
@click.option("--reason", default="", metavar="TEXT", help="One line for those who see it shut.")
@click.option(
    "--for",
    "for_s",
    type=Duration(),
    help="For this long, such as 10m. Without it, until it is opened by hand.",
)
@by_option
@json_option
def shut(*, name: str, reason: str, for_s: float | None, by: str | None, as_json: bool) -> None:
    """Stop all calls to a provider at once.

    Work waits and spends no attempt; with "recall" shut, replies go out without memories. The gate
    stays shut through restarts and does not open before its time. Then one call tests the provider.
    It is recorded in the audit log.
    """
    found = asyncio.run(_shut(name, reason, for_s, by))
    if as_json:
        render.json_record(found)
    else:
        render.gates(found)


@command("open", examples=["afterword gate open claude/claude-sonnet-5-5"])
@_name_argument
@by_option
@json_option
def open_(*, name: str, by: str | None, as_json: bool) -> None:
    """Let a provider be called again, whoever shut its gate.

    Calls begin slowly, and waiting work comes back within a minute. If the provider still fails,
    the gate shuts again. It is recorded in the audit log.
    """
    was_shut = asyncio.run(_open(name, by))
    if as_json:
        render.json_record({"name": name, "was_shut": was_shut})
    else:
        echo(f"gate {name} opens" if was_shut else f"gate {name} was not shut")


async def _list() -> Sequence[Gate]:
    async with AsyncOperator() as operator:
        return await operator.gates()


async def _shut(name: str, reason: str, for_s: float | None, by: str | None) -> list[Gate]:
    async with AsyncOperator(by=by) as operator:
        await operator.shut_gate(name, reason=reason, for_s=for_s)
        return [one for one in await operator.gates() if one.name == name]


async def _open(name: str, by: str | None) -> bool:
    async with AsyncOperator(by=by) as operator:
        return await operator.open_gate(name)


for _command in (list_, open_, shut):
    gate.add_command(_command)
