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
    """Show how many replies a tenant got and the tokens its jobs took.

    Counts every reply since the tenant's first one, and the tokens of attempts that gave none, as
    far as Claude had told them. Nothing is changed.
    """
    with Producer() as producer:
        found = producer.usage(tenant=tenant, user_id=user_id)
    if as_json:
        render.json_record(found)
    else:
        render.usage(found)
