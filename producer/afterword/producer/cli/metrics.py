"""`afterword metrics`: the fleet's metrics, printed once or served to Prometheus."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import click

from afterword.producer.admin.fleet_metrics import FleetCollector, FleetState, state_of
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, late_option
from afterword.producer.cli.terminal import echo, one_line
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import InvalidRequest, LedgerUnavailable
from afterword.shared.listen_address import ListenAddress
from afterword.shared.metrics_server import PATH, new_registry, serving


@command(
    exit_1="without --listen, the ledger could not be read",
    examples=["afterword metrics", "afterword metrics --listen 127.0.0.1:9465 --late 10m"],
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    help=f"Serve them at http://HOST:PORT{PATH} until stopped. Default: print them once.",
)
@late_option
@click.option(
    "--every",
    "every_s",
    type=Duration(),
    default="5s",
    show_default=True,
    help="Look at the ledger this often, however often Prometheus asks.",
)
def metrics(*, listen: str | None, late_s: float, every_s: float) -> None:
    """Give Prometheus what the ledger says of the whole fleet.

    Queues, workers, gates, dead letters, users whose memory is late. One such process is enough for
    a fleet. Workers serve metrics of their own at AFTERWORD_METRICS_LISTEN. A scrape from another
    machine must bear AFTERWORD_METRICS_TOKEN. Nothing is changed.
    """
    if every_s < 1:
        raise InvalidRequest("every_s", "must be at least a second")
    collector = FleetCollector()
    registry = new_registry("afterword metrics", collector)
    if listen is None:
        from prometheus_client import generate_latest

        collector.state = asyncio.run(_look_once(late_s))
        echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        address = ListenAddress.parse(listen)
    except ValueError as error:
        raise InvalidRequest("listen", str(error)) from None
    with serving(registry, address, settings_in_use().metrics_token, "--listen") as listened:
        echo(f"metrics at http://{listened}{PATH}")
        asyncio.run(_keep_current(collector, late_s, every_s))


async def _look_once(late_s: float) -> FleetState:
    async with open_ledger() as checked:
        return await _look(checked, late_s)


async def _look(checked: CheckedLedger, late_s: float) -> FleetState:
    return await state_of(await checked.for_reading(), late_s)


async def _keep_current(collector: FleetCollector, late_s: float, every_s: float) -> None:
    """Look at the ledger again and again until a signal."""
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    away = ""
    async with open_ledger() as checked:
        while not stopped.is_set():
            collector.state, problem = await _try_to_look(checked, late_s)
            if bool(problem) != bool(away):
                echo(problem or "the ledger answers again", err=True)
            away = problem
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), every_s)


async def _try_to_look(checked: CheckedLedger, late_s: float) -> tuple[FleetState | None, str]:
    """Return what was found, or why nothing was."""
    try:
        return await _look(checked, late_s), ""
    except LedgerUnavailable as error:
        return None, f"afterword: {one_line(str(error))}"
