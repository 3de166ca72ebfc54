"""`afterword keys`: who may open the console, and what for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import click

from afterword.producer.admin.access import Access, NewAccessKey
from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, by_option, json_option
from afterword.producer.cli.terminal import echo
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.ledger.access_keys import AccessKey, AccessScope


@click.group()
def keys() -> None:
    """Create, list and revoke keys of the console."""


@command(
    examples=[
        "afterword keys create ann",
        "afterword keys create ann --scope read --scope operate --expires 90d",
    ]
)
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    default=("read",),
    show_default=True,
    type=click.Choice([scope.value for scope in AccessScope]),
    help="What it may do; repeat it. read: states, counts and ids. content: what users said and "
    "what is remembered. operate: replay, shut gates, manage keys.",
)
@click.option(
    "--expires", "expires_in_s", type=Duration(), help="Refuse it after this time, such as 90d."
)
@by_option
@json_option
def create(
    *, name: str, scopes: Sequence[str], expires_in_s: float | None, by: str | None, as_json: bool
) -> None:
    """Create a key for the console, and print it.

    It is printed once: the ledger keeps only a hash of it. NAME says whose it is and stands in the
    audit log. Every key may read.
    """
    chosen = {AccessScope.READ, *map(AccessScope, scopes)}
    made = asyncio.run(_create(name, chosen, expires_in_s, by))
    if as_json:
        render.json_record(made)
    else:
        echo(made.key)
        echo(f"Key {made.record.id} of {made.record.name}. It is not shown again.", err=True)


@command("list", examples=["afterword keys list", "afterword keys list --json"])
@json_option
def list_(*, as_json: bool) -> None:
    """List the keys, without their secrets. Nothing is changed."""
    found = asyncio.run(_list())
    if as_json:
        render.json_record(found)
    elif found:
        render.access_keys(found)
    else:
        echo("no keys: create one with `afterword keys create`")


@command(exit_1="there is no such key", examples=["afterword keys revoke 3f9a61c02b7d"])
@click.argument("key_id")
@by_option
@json_option
def revoke(*, key_id: str, by: str | None, as_json: bool) -> None:
    """Refuse a key from now on, and end its sessions.

    It takes effect at once, and is recorded in the audit log.
    """
    was_there = asyncio.run(_revoke(key_id, by))
    if as_json:
        render.json_record({"id": key_id, "was_there": was_there})
    elif was_there:
        echo(f"key {key_id} is revoked")
    else:
        echo(f"there is no key {key_id}", err=True)
    if not was_there:
        raise click.exceptions.Exit(1)


async def _create(
    name: str, scopes: set[AccessScope], expires_in_s: float | None, by: str | None
) -> NewAccessKey:
    async with open_ledger() as checked:
        return await Access(checked, by or user_and_host()).create(name, scopes, expires_in_s)


async def _list() -> Sequence[AccessKey]:
    async with open_ledger() as checked:
        return await Access(checked, user_and_host()).all()


async def _revoke(key_id: str, by: str | None) -> bool:
    async with open_ledger() as checked:
        return await Access(checked, by or user_and_host()).revoke(key_id)


for _command in (create, list_, revoke):
    keys.add_command(_command)
