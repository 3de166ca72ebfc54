"""`afterword usage`: what the replies of a tenant, or of one user, have cost so far."""

from __future__ import annotations

import click

from afterword.producer.cli.render import json_option, print_json, table, tenant_option
from afterword.producer.client.sync_client import Producer
from afterword.shared.contracts import UsageSum


@click.command()
@tenant_option
@click.option("--user", "user_id", help="One user of the tenant; without, all of them.")
@json_option
def usage(*, tenant: str, user_id: str | None, as_json: bool) -> None:
    """Show how many replies there were, and the tokens they took."""
    with Producer() as producer:
        found = producer.usage(tenant=tenant, user_id=user_id)
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: UsageSum) -> None:
    table(
        ("replies", "input", "output", "cache read", "cache write"),
        [(found.replies, *(tokens for _, tokens in found.usage))],
    )
