"""`afterword console`: pages for operators."""

from __future__ import annotations

import asyncio

import click

from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.cli.command import command
from afterword.producer.cli.options import by_option, late_option
from afterword.producer.cli.terminal import echo
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import InvalidRequest, Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.listen_address import ListenAddress


@command(
    examples=[
        "afterword console",
        "afterword console --listen 0.0.0.0:9466 --origin https://console.example",
    ]
)
@click.option(
    "--listen",
    default="127.0.0.1:9466",
    show_default=True,
    metavar="HOST:PORT",
    help="Listen here. Anything but loopback asks for a key.",
)
@click.option(
    "--origin",
    default="",
    metavar="URL",
    help="How browsers reach it through a proxy, such as https://console.example. Asks for a key.",
)
@click.option("--require-key", is_flag=True, help="Ask for a key on loopback as well.")
@late_option
@by_option
def console(*, listen: str, origin: str, require_key: bool, late_s: float, by: str | None) -> None:
    """Serve pages to see the fleet, find jobs and replay.

    On loopback it is open to whoever uses this machine; everywhere else it asks for a key of
    `afterword keys create`. Leave HTTPS to a proxy. What is done on a page is recorded in the audit
    log, and so is each look at what users said. Replays that it drives are aborted when it stops,
    and can be resumed.
    """
    try:
        from afterword.producer.web.options import ConsoleOptions
        from afterword.producer.web.server import serve
    except ImportError:
        hint = install_command("console")
        raise Misconfigured("afterword console", f"needs more packages: run `{hint}`") from None
    try:
        address = ListenAddress.parse(listen)
    except ValueError as error:
        raise InvalidRequest("listen", str(error)) from None
    options = ConsoleOptions(address, by or user_and_host(), origin, require_key, late_s)
    asyncio.run(
        serve(settings_in_use(), options, lambda url: echo(f"console at {url} (Ctrl+C ends it)"))
    )
