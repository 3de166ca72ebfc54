"""What the orders of operators mean for who asks the doctor."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import datetime

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.wording import duration, utc_time
from afterword.producer.cli import render
from afterword.producer.cli.checks.finding import Finding, ok, warn
from afterword.producer.cli.workers_seen import running
from afterword.shared.ledger.order_records import FORGOTTEN_S, OrderKind, SteeringOrder
from afterword.shared.ledger.records import Overview

#: Most orders, or names of workers, that are findings of their own.
_MOST = 5

#: The command that lifts an order that lets work wait, by its kind.
_LIFTS = {
    OrderKind.PAUSE_REPLIES: ("resume", "replies"),
    OrderKind.PAUSE_MEMORIES: ("resume", "memories"),
    OrderKind.BLOCK: ("strike", "--lift"),
    OrderKind.SLOW: ("strike", "--lift"),
}


def of_orders(orders: Sequence[SteeringOrder], shards: Sequence[Overview]) -> list[Finding]:
    """Judge the orders that let work wait, and the workers that are too old to obey any."""
    stopping = [order for order in orders if order.kind in _LIFTS]
    findings = [
        warn("orders", _detail(order), _cure(order, shards[0].at))
        for order in sorted(stopping, key=lambda one: not _is_forgotten(one, shards[0].at))[:_MOST]
    ]
    if more := len(stopping) - len(findings):
        findings.append(warn("orders", f"{more:,} more let work wait", "See `afterword orders`."))
    workers = [worker for kind in QUEUES for worker in running(shards, kind)]
    deaf = sorted({worker.name for worker in workers if not worker.instance})
    if orders and deaf:
        detail = f"workers of a version that obeys no orders: {', '.join(deaf[:_MOST])}"
        findings.append(warn("orders", detail, "Finish the upgrade: restart them."))
    return findings or [ok("orders", "none lets work wait")]


def _detail(order: SteeringOrder) -> str:
    until = f" until {utc_time(order.until)}" if order.until else ""
    why = f": {order.reason}" if order.reason else ""
    what = f"{render.order_text(order)} for {render.whom(order)}"
    return f"{what} since {utc_time(order.since)}{until}, by {order.by}{why}"


def _is_forgotten(order: SteeringOrder, now: datetime) -> bool:
    return order.can_be_forgotten and (now - order.since).total_seconds() > FORGOTTEN_S


def _cure(order: SteeringOrder, now: datetime) -> str:
    if not _is_forgotten(order, now):
        return f"Once its reason is gone: {_lift(order)}"
    age = duration((now - order.since).total_seconds())
    return (
        f"It ends only when it is lifted, and is {age} old. If it was forgotten: {_lift(order)}. "
        "If not, give it again with --for."
    )


def _lift(order: SteeringOrder) -> str:
    words = ["afterword", *_LIFTS[order.kind]]
    if order.kind in (OrderKind.BLOCK, OrderKind.SLOW):
        words.append(order.tenant or "")
    elif order.tenant is not None:
        words += ["--tenant", order.tenant]
    if order.user_id is not None:
        words += ["--user", order.user_id]
    return shlex.join([*words, "--apply"])
