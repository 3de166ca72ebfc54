"""`afterword drain`: lets workers finish what they hold, and end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.async_steering import QUEUES, AsyncSteering, WorkerKind
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, apply_option, by_option, json_option
from afterword.producer.cli.steering import (
    OrdersChanged,
    reason_option,
    show_given,
    state_of,
    steered,
)
from afterword.producer.cli.terminal import echo
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.ledger.records import WorkerSeen
from afterword.shared.plurals import quantity

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Drained(OrdersChanged):
    """Orders to drain; `left` names the workers that still ran when nobody waited any longer."""

    left: Sequence[str] = ()


@command(
    exit_1="with --wait: a worker still runs after that time",
    examples=[
        "afterword drain HOST:PID --apply --wait 10m",
        "afterword drain --kind responses --apply --wait 10m",
    ],
)
@click.argument("worker", metavar="[WORKER]", required=False)
@click.option(
    "--kind",
    type=click.Choice(list(QUEUES)),
    help="In place of a name: all workers that are of this kind now.",
)
@click.option(
    "--wait", "wait_s", type=Duration(), help="Wait this long for them to end, such as 10m."
)
@reason_option
@apply_option
@by_option
@json_option
def drain(  # noqa: PLR0913 its options
    *,
    worker: str | None,
    kind: WorkerKind | None,
    wait_s: float | None,
    reason: str,
    apply: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Let a worker finish what it holds, and end.

    It takes no more, and finishes what it holds, however long that takes. `afterword status` lists
    the names. A worker that a supervisor starts in its place is not drained, so --kind replaces the
    workers of a kind one deploy after another. SIGTERM cuts a drain short: then what still runs
    after AFTERWORD_DRAIN_S is given to another worker. It is recorded in the audit log.
    """
    if (worker is None) == (kind is None):
        raise click.UsageError("give the name of a worker, or --kind")
    found = asyncio.run(_drain(worker, kind, reason, by, apply=apply, wait_s=wait_s))
    show_given(found, as_json=as_json)
    if found.left and wait_s is not None:
        if not as_json:
            echo(f"still running: {', '.join(found.left)}")
        raise click.exceptions.Exit(1)
    if apply and wait_s is not None and not as_json:
        echo(f"{quantity(len(found.orders), 'worker')} ended")


async def _drain(
    name: str | None,
    kind: WorkerKind | None,
    reason: str,
    by: str | None,
    *,
    apply: bool,
    wait_s: float | None,
) -> Drained:
    async with AsyncOperator(by=by) as operator:
        steering = steered(operator, apply=apply)
        running = await steering.workers()
        given = await _given(steering, name, kind, reason)
        drained = {order.worker for order in given}
        chosen = [one for one in running if one.name in drained]
        left = await _left(steering, chosen, wait_s or 0.0) if apply else []
        return Drained(state_of(apply=apply), given, left)


async def _given(
    steering: AsyncSteering, name: str | None, kind: WorkerKind | None, reason: str
) -> Sequence[SteeringOrder]:
    if kind is not None:
        return await steering.drain_kind(kind, reason=reason)
    return [await steering.drain(name or "", reason=reason)]


async def _left(steering: AsyncSteering, chosen: Sequence[WorkerSeen], wait_s: float) -> list[str]:
    """Wait until these processes have ended, or for so long; return the names of the others."""
    instances = {one.instance for one in chosen}
    end = asyncio.get_running_loop().time() + wait_s
    while True:
        left = [one.name for one in await steering.workers() if one.instance in instances]
        if not left or asyncio.get_running_loop().time() >= end:
            return left
        await asyncio.sleep(_LOOK_EVERY_S)
