"""Options that several commands share, and the kinds of values that they take."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from afterword.producer.admin.durations import read_seconds, read_time
from afterword.producer.cli.terminal import echo
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter, DeadLetterKind


class NumberRange(click.FloatRange):
    """A number within bounds; click takes one that is none (`nan`) for one within all of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, ctx)
        return number


class Duration(click.ParamType[float]):
    """A duration such as 90s, 10m, 2h, 3d or 1w; a bare number is seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it in seconds."""
        if isinstance(value, float):
            return value
        seconds = read_seconds(value)
        if seconds is None:
            self.fail(f"{value!r} is not a duration such as 90s, 10m, 2h or 3d", param, ctx)
        return seconds


class PointInTime(click.ParamType[datetime]):
    """A point in time: ISO 8601, in UTC unless it has an offset, or a duration before now."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it with its time zone."""
        if isinstance(value, datetime):
            return value
        moment = read_time(value)
        if moment is None:
            self.fail(
                f"{value!r} is not a time: use ISO 8601 such as 2026-11-22T10:00, or a duration "
                "before now such as 10m, 2h or 3d",
                param,
                ctx,
            )
        return moment


class InputFile(click.Path):
    """The path of a file that exists."""

    def __init__(self) -> None:
        super().__init__(exists=True, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; no name of a file holds half a character or a NUL."""
        try:
            return super().convert(value, param, ctx)
        except ValueError:
            self.fail(f"{value!r} cannot be the name of a file", param, ctx)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
tenant_option = click.option(
    "--tenant",
    default="default",
    show_default=True,
    metavar="TENANT",
    help="Tenant that the user belongs to.",
)
by_option = click.option(
    "--by", metavar="NAME", help="Name for the audit log. Default: your user name and this host."
)
late_option = click.option(
    "--late",
    "late_s",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Count a user as late once their oldest unstored turn is older than this.",
)
apply_option = click.option(
    "--apply", is_flag=True, help="Make the change. Without it, nothing is changed."
)
all_option = click.option("--all", "every", is_flag=True, help="Choose all dead letters.")
ids_argument = click.argument("ids", metavar="[JOB_ID]...", nargs=-1)


def limit_option(default: int, most: int) -> Callable[[Any], Any]:
    """Return the option that says how many rows to list."""
    return click.option(
        "--limit",
        default=default,
        show_default=True,
        metavar="N",
        type=click.IntRange(1, most),
        help=f"List at most this many, from 1 to {most:,}.",
    )


def after_option(what: str) -> Callable[[Any], Any]:
    """Return the option that continues a list behind the last row that was seen."""
    return click.option("--after", metavar="ID", help=f"Go on after {what} with this id.")


def tell_of_more(after: str) -> None:
    """Say on standard error that a list goes on, and how to go on with it."""
    echo(f"There are more: go on with --after {after}", err=True)


def with_options(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Give a command several options, listed in this order by its help."""

    def decorate(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_FILTER_OPTIONS = (
    click.option(
        "--kind",
        type=click.Choice([kind.value for kind in DeadLetterKind]),
        help="memory: turns that could not be stored. reply: jobs that failed.",
    ),
    click.option("--tenant", metavar="TENANT", help="Only this tenant."),
    click.option("--user", "user_id", metavar="USER_ID", help="Only this user id (exact match)."),
    click.option(
        "--since",
        type=PointInTime(),
        help="Buried at this time or later: ISO 8601 (UTC unless it has an offset), or a duration "
        "before now such as 10m, 2h or 3d.",
    ),
    click.option(
        "--until", type=PointInTime(), help="Buried before this time. Same format as --since."
    ),
    click.option(
        "--older-than",
        "older_than_s",
        type=Duration(),
        help="Buried at least this long ago, such as 10m, 2h or 3d.",
    ),
    click.option(
        "--fault",
        type=click.Choice([fault.value for fault in Fault]),
        help="Whose failure it was.",
    ),
    click.option("--code", metavar="TEXT", help="Error code contains this text (any case)."),
    click.option("--worker-version", metavar="VERSION", help="Buried by a worker of this version."),
    click.option("--limit", type=int, metavar="N", help="At most this many, oldest burial first."),
)


def dead_filter(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that choose dead letters; it receives them as `chosen`."""

    @functools.wraps(function)
    def with_filter(**options: Any) -> None:
        names = [name for name in DeadLetterFilter.__dataclass_fields__ if name in options]
        given = {name: value for name in names if (value := options.pop(name)) not in (None, ())}
        function(chosen=DeadLetterFilter(**given), **options)

    decorated: Callable[..., None] = with_options(*_FILTER_OPTIONS)(with_filter)
    return decorated


def check_something_chosen(chosen: DeadLetterFilter, *, every: bool) -> None:
    """Refuse a command that would change dead letters without saying which."""
    if chosen.matches_all and not every:
        raise click.UsageError("choose dead letters: by id, by a filter, or with --all")
    if not chosen.matches_all and every:
        raise click.UsageError("--all cannot be combined with ids or filters")
