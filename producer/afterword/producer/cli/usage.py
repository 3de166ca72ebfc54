"""`afterword usage`: the tokens of a tenant, or of one user."""

from __future__ import annotations

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option, tenant_option
from afterword.producer.client.sync_client import Producer


@command(examples=["afterword usage", "afterword usage --tenant acme --user user_42 --json"])
@tenant_option
@click.option("--user", "user_id", metavar="USER_ID", help="Only this user of the tenant.")
@json_option
def usage(*, tenant: str, user_id: str | None, as_json: bool) -> None:
    """Show what replies and memories of a tenant cost.

    Counts every reply since the tenant's first one, the tokens of attempts that gave none, and
    those by which workers extracted memories, as far as Claude had told them. What mem0's platform
    extracts has its own price list and is not in it. Nothing is changed.
    """
    with Producer() as producer:
        found = producer.usage(tenant=tenant, user_id=user_id)
    if as_json:
        render.json_record(found)
    else:
        render.usage(found)
