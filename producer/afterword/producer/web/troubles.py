"""What needs somebody's attention, in sentences, each with the page on which it is mended. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from afterword.producer.admin.async_steering import QUEUES
from afterword.producer.admin.fleet_status import other_memories
from afterword.producer.admin.wording import cause, duration, utc_time
from afterword.shared.ledger.order_records import STOPPING, OrderKind, SteeringOrder
from afterword.shared.ledger.records import Gate, GateState

#: Most orders that are told one by one.
_MOST_ORDERS = 5

#: Orders that somebody may have forgotten: customers wait for their end.
HOLDING_UP = (*STOPPING, OrderKind.SLOW)


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is wrong, or not as usual."""

    tone: Literal["bad", "late"]
    """`bad` if something stands still because of it."""

    text: str
    """What it is, and what to do if that is done elsewhere."""

    path: str
    """The page on which it is seen in full, and mended."""

    link: str
    """What that page is called."""


def troubles(
    status: Mapping[str, Any], problems: Sequence[str], *, over_budget: int, remembers: bool
) -> Sequence[Trouble]:
    """Return what is wrong with a fleet, that first which stops everything.

    `status` is what `fleet_status.found_in` returns, `over_budget` how many tenants have spent
    their budget, and `remembers` whether there is a memory backend at all.
    """
    return [
        *(_of_redis(problem) for problem in problems),
        *_of_workers(status, remembers=remembers),
        *_of_memories(status["workers"]),
        *(_of_gate(gate) for gate in status["gates"]),
        *_of_orders(status["orders"]),
        *_of_budgets(over_budget),
    ]


def missing_kinds(status: Mapping[str, Any], *, remembers: bool) -> Sequence[str]:
    """Return the kinds of workers of which none takes work, though there may be some."""
    taking = {
        queue
        for worker in status["workers"]
        if not worker["draining"]
        for queue in worker["queue"].split("+")
    }
    return [
        kind
        for kind, queue in QUEUES.items()
        if queue not in taking and (remembers or kind != "memories" or _waiting(status, kind))
    ]


def order_text(order: SteeringOrder) -> str:
    """Return what an order does, to whom, who gave it and why, and how much waits because of it."""
    whom = _whom(order)
    match order.kind:
        case OrderKind.PAUSE_REPLIES:
            text = f"Replies to {whom} are paused"
        case OrderKind.PAUSE_MEMORIES:
            text = f"Writes to memory of {whom} are paused"
        case OrderKind.BLOCK:
            text = f"{whom[0].upper()}{whom[1:]} is blocked"
        case _:
            every = duration(order.every_s or 0.0)
            text = f"{whom[0].upper()}{whom[1:]} gets one reply in {every}"
    until = f", until {utc_time(order.until)}" if order.until else ""
    waiting = f"; {order.waiting:,} wait" if order.waiting else ""
    reason = f": {order.reason}" if order.reason else ""
    return f"{text} by {order.by}{until}{waiting}{reason}"


def _whom(order: SteeringOrder) -> str:
    if order.user_id is not None:
        return f"user {order.user_id} of {order.tenant}"
    return "everybody" if order.tenant is None else f"tenant {order.tenant}"


def _waiting(status: Mapping[str, Any], kind: str) -> int:
    """Return how much waits for a kind of workers, or is held by one that may be gone."""
    row = status["queues"][QUEUES[kind]]
    return sum(int(row[place]) for place in ("ready", "delayed", "running"))


def _of_redis(problem: str) -> Trouble:
    return Trouble("bad", f"Redis is not fit for use: {problem}", "/workers", "Workers")


def _of_workers(status: Mapping[str, Any], *, remembers: bool) -> Iterator[Trouble]:
    for kind in missing_kinds(status, remembers=remembers):
        waiting = _waiting(status, kind)
        what = "response worker" if kind == "responses" else "memory worker"
        wait = f", and {waiting:,} {'waits' if waiting == 1 else 'wait'}" if waiting else ""
        start = f"start one with afterword worker {kind}"
        yield Trouble(
            "bad" if waiting else "late",
            f"No {what} takes work{wait}: {start}.",
            "/workers",
            "Workers",
        )


def _of_memories(workers: Sequence[Mapping[str, Any]]) -> Iterator[Trouble]:
    seen = [(one["name"], one["memory"], one["memory_place"]) for one in workers]
    if differ := other_memories(seen):
        text = f"Workers do not use the same memory: {differ}."
        yield Trouble("late", text, "/workers", "Workers")


def _of_gate(gate: Gate) -> Trouble:
    tone: Literal["bad", "late"] = "bad" if gate.state is GateState.SHUT else "late"
    return Trouble(tone, f"Gate {gate.name} is {gate.state}, {cause(gate)}.", "/gates", "Gates")


def _of_orders(orders: Sequence[SteeringOrder]) -> Iterator[Trouble]:
    held_up = [order for order in orders if order.kind in HOLDING_UP]
    held_up.sort(key=lambda order: -order.waiting)
    for order in held_up[:_MOST_ORDERS]:
        yield Trouble("late", f"{order_text(order)}.", "/orders", "Orders")
    if more := held_up[_MOST_ORDERS:]:
        waiting = sum(order.waiting for order in more)
        be, wait = ("is" if len(more) == 1 else "are"), ("waits" if waiting == 1 else "wait")
        text = f"{len(more):,} more {be} paused, blocked or slowed down; {waiting:,} {wait}."
        yield Trouble("late", text, "/orders", "Orders")


def _of_budgets(over_budget: int) -> Iterator[Trouble]:
    if over_budget:
        one = over_budget == 1
        who = "One tenant has" if one else f"{over_budget:,} tenants have"
        refused = f"new requests of {'it' if one else 'them'} are refused"
        yield Trouble("late", f"{who} spent all of the budget: {refused}.", "/budgets", "Budgets")
