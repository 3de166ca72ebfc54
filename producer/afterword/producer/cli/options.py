"""Which dead letters: the same options for every command that takes some."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from afterword.shared.clock import utc_now
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter, DeadLetterKind

_UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_FAULTS = [fault.value for fault in Fault]
_SPAN = re.compile(rf"(\d+(?:\.\d+)?) ?({'|'.join(_UNITS)})")


class Span(click.ParamType[float]):
    """A time span as people say it: 90s, 30min, 2h, 7d."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it in seconds."""
        if isinstance(value, float):
            return value
        found = _SPAN.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is no span: say 90s, 30min, 2h or 7d", param, ctx)
        return float(found[1]) * _UNITS[found[2]]


class Moment(click.ParamType[datetime]):
    """A point in time: as ISO 8601, in UTC unless it says otherwise, or so long ago."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return it, aware."""
        if isinstance(value, datetime):
            return value
        if found := _SPAN.fullmatch(value):
            return utc_now() - timedelta(seconds=float(found[1]) * _UNITS[found[2]])
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: say 2026-11-22T10:00 or 2h", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_OPTIONS = (
    click.option(
        "--kind",
        type=click.Choice([kind.value for kind in DeadLetterKind]),
        help="Memories of turns, or replies.",
    ),
    click.option("--tenant", help="Of this tenant."),
    click.option("--user", "user_id", help="Of this user id, exactly."),
    click.option("--since", type=Moment(), help="Buried at or after: a time, or so long ago."),
    click.option("--until", type=Moment(), help="Buried before: a time, or so long ago."),
    click.option("--older-than", "older_than_s", type=Span(), help="Buried so long ago: 2h, 7d."),
    click.option("--fault", type=click.Choice(list(_FAULTS)), help="Whose failure."),
    click.option("--code", help="With this text in the error code."),
    click.option("--worker-version", help="Given up by this version of the worker."),
    click.option("--limit", type=int, help="Most letters, oldest burial first."),
)


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a filter, and the filter as `chosen`."""

    @functools.wraps(command)
    def with_filter(**options: Any) -> None:
        names = [name for name in DeadLetterFilter.__dataclass_fields__ if name in options]
        said = {name: value for name in names if (value := options.pop(name)) is not None}
        if "kind" in said:
            said["kind"] = DeadLetterKind(said["kind"])
        if "fault" in said:
            said["fault"] = Fault(said["fault"])
        command(chosen=DeadLetterFilter(**said), **options)

    for option in reversed(_OPTIONS):
        with_filter = option(with_filter)
    return with_filter


def something(chosen: DeadLetterFilter, *, every: bool) -> DeadLetterFilter:
    """Return the filter if it says which letters, or all are meant."""
    if chosen.matches_all and not every:
        raise click.UsageError("name the letters, give a filter, or say --all")
    if not chosen.matches_all and every:
        raise click.UsageError("--all goes with no filter")
    return chosen
