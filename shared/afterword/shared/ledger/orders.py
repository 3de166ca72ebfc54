"""The orders of operators: kept in every shard that they concern, obeyed by its scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger import order_steps
from afterword.shared.ledger.order_records import (
    EVERYONE,
    OrderKind,
    SteeringOrder,
    read_order,
)
from afterword.shared.ledger.records import readable
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys, lane_id, memory_key, shard_of

#: Most orders that one shard keeps.
MOST_ORDERS = 1000


@dataclass(frozen=True, slots=True)
class Whom:
    """Whom an order concerns: everybody, a tenant, one of its users, or a worker."""

    tenant: str | None = None
    user_id: str | None = None
    worker: str | None = None


class Orders:
    """Gives, lifts and lists orders. Each is one record in each shard that it concerns.

    An order of a tenant, or of everybody, concerns all shards: giving it again, or lifting it
    again, is safe if one of them did not answer.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def give(
        self,
        kind: OrderKind,
        whom: Whom,
        told: dict[str, Any],
        *,
        for_s: float | None = None,
        until: datetime | None = None,
        rehearsed: bool = False,
    ) -> SteeringOrder:
        """Give an order, or another one in its place; return it as it is kept.

        `told` is who gave it (`by`), the `reason`, and what belongs to its kind. It ends after
        `for_s` seconds, at `until`, or when it is lifted. Raises `InvalidRequest` if a shard keeps
        as many as it may, or if `until` is over. Nothing is written if it is only `rehearsed`.
        """
        given: SteeringOrder | None = None
        for keys in self._concerned(whom):
            arguments = order_steps.GiveOrder(
                name=_name(kind, whom, keys),
                order=json.dumps(self._of_one_shard(whom, told)),
                for_ms=milliseconds(for_s) if for_s else 0,
                until_ms=round(until.timestamp() * 1000) if until else 0,
                most=MOST_ORDERS,
                rehearsed=rehearsed,
            )
            word, *kept = await self._shards.run_script(keys, arguments)
            _check_given(word)
            given = given or read_order(arguments.name, kept[0], 0)
        assert given is not None, "there is a shard"
        return given

    async def lift(self, kind: OrderKind, whom: Whom) -> bool:
        """Take an order back; return whether it was in force. What waited is woken by sweeps."""
        lifted = [
            await self._shards.run_script(keys, order_steps.LiftOrder(name=_name(kind, whom, keys)))
            for keys in self._concerned(whom)
        ]
        return any(was_in_force for (was_in_force,) in lifted)

    async def in_force(self) -> Sequence[SteeringOrder]:
        """Return the orders that are in force, those given first coming first."""
        arguments = order_steps.ListOrders(most=MOST_ORDERS)
        answers = await asyncio.gather(
            *(self._shards.run_script(keys, arguments) for keys in self._shards.all)
        )
        found: dict[object, SteeringOrder] = {}
        for order in (
            order for (rows,) in answers for order in readable(read_order, rows, "order")
        ):
            whose = (order.kind, order.tenant, order.user_id, order.worker)
            known = found.get(whose)
            waiting = order.waiting + (known.waiting if known else 0)
            found[whose] = replace(known or order, waiting=waiting)
        return sorted(found.values(), key=lambda order: order.since)

    def _concerned(self, whom: Whom) -> Sequence[Keys]:
        """Return the shards that an order concerns; workers report to the first."""
        if whom.worker is not None:
            return self._shards.all[:1]
        if whom.user_id is None:
            return self._shards.all
        owner = memory_key(whom.tenant or "", whom.user_id)
        return [self._shards.all[shard_of(owner, self._shards.settings.shards)]]

    def _of_one_shard(self, whom: Whom, told: dict[str, Any]) -> dict[str, Any]:
        """Return what one shard is told: a tenant is slowed over all shards, so more in each."""
        if "every_ms" not in told:
            return told
        shards = 1 if whom.user_id is not None else self._shards.settings.shards
        return told | {"interval_ms": told["every_ms"] * shards}


def _name(kind: OrderKind, whom: Whom, keys: Keys) -> str:
    """Return the name of an order in one shard: see `order_in` in `_lib.lua`."""
    if whom.worker is not None:
        return f"{kind} {whom.worker}"
    if whom.tenant is None:
        return f"{kind} {EVERYONE}"
    if whom.user_id is None:
        return f"{kind} :{whom.tenant}"
    return f"{kind} {lane_id(memory_key(whom.tenant, whom.user_id), keys.shard)}"


def _check_given(word: str) -> None:
    if word == "full":
        raise InvalidRequest("orders", f"there are {MOST_ORDERS} in force; lift some first")
    if word == "over":
        raise InvalidRequest("until", "must be in the future, by the clock of Redis")
