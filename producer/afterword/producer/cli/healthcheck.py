"""`afterword healthcheck`: for the health check of a container."""

from __future__ import annotations

import asyncio
import socket

import click

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.fleet_status import GONE_S
from afterword.producer.cli.command import command
from afterword.producer.cli.terminal import echo
from afterword.producer.cli.workers_seen import open_ledger, running


@command(
    exit_1="no worker of this kind on this host sent a heartbeat in the last 15 seconds",
    examples=["afterword healthcheck responses", "afterword healthcheck memories --pid 4711"],
)
@click.argument("kind", type=click.Choice(list(QUEUES)))
@click.option("--pid", type=int, metavar="PID", help="Only this process: not another on this host.")
def healthcheck(*, kind: str, pid: int | None) -> None:
    """Check that a worker of this KIND runs on this host.

    Where several run, as outside of containers, name the process.

    A worker counts as running if it sent a heartbeat in the last 15 seconds. A worker whose event
    loop is stuck, that has lost Redis or that takes no messages sends none. Nothing is changed.
    """
    if not asyncio.run(_runs_here(kind, pid)):
        echo(
            f"afterword: no worker for {kind} on {socket.gethostname()} has sent a heartbeat in "
            f"the last {GONE_S:g} s",
            err=True,
        )
        raise click.exceptions.Exit(1)


async def _runs_here(kind: str, pid: int | None) -> bool:
    async with open_ledger() as checked:
        found = running(await checked.ledger.maintenance.overview(), kind)
    here = [worker.name.rpartition(":") for worker in found]
    return any(
        host == socket.gethostname() and (pid is None or number == str(pid))
        for host, _, number in here
    )
