"""The arguments of the scripts of operators' orders; see `steps`."""

from __future__ import annotations

from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("order/give")
class GiveOrder(NamedTuple):
    """Give an operator's order."""

    name: str
    order: str
    for_ms: int
    until_ms: int
    most: int
    rehearsed: bool


@declares("order/lift")
class LiftOrder(NamedTuple):
    """Take an operator's order back."""

    name: str


@declares("order/list")
class ListOrders(NamedTuple):
    """List the orders that are in force."""

    most: int
