"""What the commands that steer a fleet share; and `afterword orders`, which lists orders."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import AsyncSteering
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    Duration,
    PointInTime,
    apply_option,
    by_option,
    json_option,
    with_options,
)
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.shared.ledger.dead_letter_records import ReplayState
from afterword.shared.ledger.order_records import SteeringOrder

reason_option = click.option(
    "--reason", default="", metavar="TEXT", help="One line for those who see it."
)
_duration_options = (
    reason_option,
    click.option(
        "--for", "for_s", type=Duration(), help="For this long, such as 10m. Without it and "
        "--until, until it is lifted.",
    ),
    click.option(
        "--until", type=PointInTime(), help="Until this time: ISO 8601, in UTC unless it has an "
        "offset.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class OrdersChanged:
    """Orders that were given or lifted; `state` is `dry` if they only would be."""

    state: ReplayState
    orders: Sequence[SteeringOrder]


@dataclass(frozen=True, slots=True)
class Terms:
    """Who gives an order, why, and when it ends."""

    by: str | None
    reason: str
    for_s: float | None = None
    until: datetime | None = None


def order_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command what every order has: --apply, --json, and its terms as `terms`."""

    @functools.wraps(function)
    def with_terms(
        *,
        by: str | None,
        reason: str,
        for_s: float | None,
        until: datetime | None,
        **others: object,
    ) -> None:
        function(terms=Terms(by, reason, for_s, until), **others)

    options = (*_duration_options, apply_option, by_option, json_option)
    decorated: Callable[..., Any] = with_options(*options)(with_terms)
    return decorated


def show_given(changed: OrdersChanged, *, as_json: bool) -> None:
    """Print orders that were given, or would be."""
    if as_json:
        render.json_record(changed)
        return
    render.orders(changed.orders)
    if changed.state is ReplayState.DRY:
        tell_of_dry_run("give the order")


def show_lifted(changed: OrdersChanged, *, as_json: bool) -> None:
    """Print orders that were lifted, or would be."""
    if as_json:
        render.json_record(changed)
        return
    if not changed.orders:
        echo("there is no such order in force")
        return
    render.orders(changed.orders)
    if changed.state is ReplayState.DRY:
        tell_of_dry_run("lift it")
    else:
        echo("lifted")


def steered(operator: AsyncOperator, *, apply: bool) -> AsyncSteering:
    """Return what gives orders, or what only says which it would give."""
    return operator.steering if apply else operator.steering.dry_run()


def state_of(*, apply: bool) -> ReplayState:
    """Return whether orders were given or lifted, or only would be."""
    return ReplayState.DONE if apply else ReplayState.DRY


@command(examples=["afterword orders", "afterword orders --json"])
@json_option
def orders(*, as_json: bool) -> None:
    """List what is paused, blocked, slowed, limited or drained.

    Who gave each, since when, until when, and how many jobs or users wait for its end. Nothing is
    changed.
    """
    found = asyncio.run(_orders())
    if as_json:
        render.json_record(found)
    elif found:
        render.orders(found)
    else:
        echo("no orders are in force")


async def _orders() -> Sequence[SteeringOrder]:
    async with AsyncOperator() as operator:
        return await operator.steering.orders()
