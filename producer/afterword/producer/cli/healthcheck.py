"""`afterword healthcheck`: whether a worker of this machine works; what a health check asks."""

from __future__ import annotations

import asyncio
import socket

import click

from afterword.producer.cli.stack import QUEUES
from afterword.producer.cli.status import GONE_S
from afterword.shared.discovery import settings_in_use
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import Overview


@click.command()
@click.argument("kind", type=click.Choice(list(QUEUES)))
def healthcheck(*, kind: str) -> None:
    """Exit 0 if a worker of this KIND on this machine swept a moment ago, else 1.

    A worker whose event loop is stuck, or that has lost Redis, does not sweep.
    """
    overview = asyncio.run(_overview())
    host, queue = socket.gethostname(), QUEUES[kind]
    if not any(
        worker.name.rpartition(":")[0] == host
        and queue in worker.queue.split("+")
        and (overview.at - worker.seen_at).total_seconds() < GONE_S
        for worker in overview.workers
    ):
        click.echo(f"no worker for {kind} on {host} has swept for {GONE_S:g} s", err=True)
        raise click.exceptions.Exit(1)


async def _overview() -> Overview:
    """Return one shard's: every worker sweeps them all."""
    settings = settings_in_use()
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        return (await ledger.maintenance.overview())[0]
