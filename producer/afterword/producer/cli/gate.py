"""`afterword gate`: shows which providers are not called, stops calls and lets them begin again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, apply_option, by_option, json_option
from afterword.producer.cli.steering import state_of
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.shared.ledger.dead_letter_records import ReplayState
from afterword.shared.ledger.records import Gate


@dataclass(frozen=True, slots=True)
class GatesChanged:
    """A gate that was shut or opened, as it is or was shut; `state` is `dry` if it only would be.

    No gate, if the one to be opened was not shut.
    """

    state: ReplayState
    gates: Sequence[Gate]


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
        'afterword gate shut remember --reason "mem0 migrates" --for 2h --apply',
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
@apply_option
@by_option
@json_option
def shut(
    *, name: str, reason: str, for_s: float | None, apply: bool, by: str | None, as_json: bool
) -> None:
    """Stop all calls to a provider at once.

    Work waits and spends no attempt; with "recall" shut, replies go out without memories. The gate
    stays shut through restarts and does not open before its time. Then one call tests the provider.
    It is recorded in the audit log.
    """
    changed = asyncio.run(_shut(name, reason, for_s, by, apply=apply))
    if as_json:
        render.json_record(changed)
        return
    render.gates(changed.gates)
    if not apply:
        tell_of_dry_run("shut it")


@command("open", examples=["afterword gate open claude/claude-sonnet-5-5 --apply"])
@_name_argument
@apply_option
@by_option
@json_option
def open_(*, name: str, apply: bool, by: str | None, as_json: bool) -> None:
    """Let a provider be called again, whoever shut its gate.

    Calls begin slowly, and waiting work comes back within a minute. If the provider still fails,
    the gate shuts again. It is recorded in the audit log.
    """
    changed = asyncio.run(_open(name, by, apply=apply))
    if as_json:
        render.json_record(changed)
    elif not changed.gates:
        echo(f"gate {name} is not shut")
    elif apply:
        echo(f"gate {name} opens")
    else:
        render.gates(changed.gates)
        tell_of_dry_run("open it")


async def _list() -> Sequence[Gate]:
    async with AsyncOperator() as operator:
        return await operator.gates()


async def _shut(
    name: str, reason: str, for_s: float | None, by: str | None, *, apply: bool
) -> GatesChanged:
    async with AsyncOperator(by=by) as operator:
        shut = await operator.shut_gate(name, reason=reason, for_s=for_s, dry_run=not apply)
    return GatesChanged(state_of(apply=apply), [shut])


async def _open(name: str, by: str | None, *, apply: bool) -> GatesChanged:
    async with AsyncOperator(by=by) as operator:
        shut = [one for one in await operator.gates() if one.name == name]
        was_shut = await operator.open_gate(name, dry_run=not apply)
    return GatesChanged(state_of(apply=apply), shut if was_shut else [])


for _command in (list_, open_, shut):
    gate.add_command(_command)
