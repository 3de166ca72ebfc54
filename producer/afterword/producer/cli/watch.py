"""Looking again and again, as `--watch` does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from afterword.producer.admin.wording import utc_time
from afterword.producer.cli.options import Duration
from afterword.producer.cli.terminal import echo, one_line
from afterword.shared.clock import utc_now
from afterword.shared.errors import InvalidRequest, LedgerUnavailable

Found = TypeVar("Found")

#: Shortest time between two looks, in seconds: each costs Redis some milliseconds.
SHORTEST_S = 0.2

watch_option = click.option(
    "--watch",
    "every_s",
    type=Duration(),
    is_flag=False,
    flag_value="2s",
    metavar="[DURATION]",
    help="Look again this often, until interrupted. Without a duration, every 2 s.",
)


async def watch(
    look: Callable[[], Awaitable[Found]],
    show: Callable[[Found], None],
    every_s: float,
    *,
    until: Callable[[Found], bool] = lambda _: False,
    head: bool = True,
) -> None:
    """Look and show, again and again, until `until` says that this was the last look.

    A terminal is cleared before each look. While the ledger cannot be read, it says so instead of
    showing what was true before, and goes on. With `head`, a line says when it looked.
    """
    while True:
        try:
            found = await look()
        except LedgerUnavailable as error:
            _begin(every_s, head=head)
            echo(f"afterword: {one_line(str(error))}", err=True)
        else:
            _begin(every_s, head=head)
            show(found)
            if until(found):
                return
        await asyncio.sleep(every_s)


def checked_interval(every_s: float) -> float:
    """Return it; raises `InvalidRequest` if it is shorter than `SHORTEST_S`."""
    if every_s < SHORTEST_S:
        raise InvalidRequest("every_s", f"must be at least {SHORTEST_S} s")
    return every_s


def _begin(every_s: float, *, head: bool) -> None:
    if not head:
        return
    if sys.stdout.isatty():
        click.clear()
    echo(f"{utc_time(utc_now())}, every {every_s:g} s; Ctrl-C ends\n")
