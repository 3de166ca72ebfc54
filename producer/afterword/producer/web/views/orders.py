"""Orders to the running fleet: work paused, customers blocked or slowed down, and let go again."""

from __future__ import annotations

from typing import Any, cast, get_args

from starlette.responses import RedirectResponse, Response

from afterword.producer.admin.async_steering import Work
from afterword.producer.web.console import Visit
from afterword.producer.web.forms import seconds
from afterword.shared.contracts import DEFAULT_TENANT
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.order_records import OrderKind

#: What a pause is called in a form, by what it stops.
_PAUSES = {OrderKind.PAUSE_REPLIES: "replies", OrderKind.PAUSE_MEMORIES: "memories"}


async def orders(visit: Visit) -> Response:
    """Show the orders that are in force."""
    return visit.page(
        "orders.html",
        orders=await visit.operator.steering.orders(),
        tenant=visit.asked("tenant"),
        user_id=visit.asked("user_id"),
    )


async def pause(visit: Visit) -> Response:
    """Let replies, or writes to memory, wait."""
    await visit.operator.steering.pause(
        _work(visit.asked("work")),
        tenant=visit.asked("tenant") or None,
        user_id=visit.asked("user_id") or None,
        **_until(visit),
    )
    return RedirectResponse("/orders", 303)


async def strike(visit: Visit) -> Response:
    """Block a tenant or a user, or slow their replies down."""
    every = visit.asked("every_s")
    await visit.operator.steering.strike(
        visit.asked("tenant") or DEFAULT_TENANT,
        user_id=visit.asked("user_id") or None,
        every_s=seconds("every_s", every) if every else None,
        **_until(visit),
    )
    return RedirectResponse("/orders", 303)


async def lift(visit: Visit) -> Response:
    """Lift an order: a pause, a block, a slowdown, or a tenant's limits."""
    steering, kind = visit.operator.steering, visit.asked("kind")
    tenant, user_id = visit.asked("tenant") or None, visit.asked("user_id") or None
    if kind in _PAUSES:
        await steering.resume(_work(_PAUSES[OrderKind(kind)]), tenant=tenant, user_id=user_id)
    elif kind in (OrderKind.BLOCK, OrderKind.SLOW) and tenant:
        await steering.lift_strike(tenant, user_id=user_id)
    elif kind == OrderKind.LIMITS and tenant:
        await steering.lift_limits(tenant)
    else:
        raise InvalidRequest("kind", "must be one of the orders that are in force")
    return RedirectResponse("/orders", 303)


def _work(text: str) -> Work:
    if text not in get_args(Work):
        raise InvalidRequest("work", "must be replies or memories")
    return cast("Work", text)


def _until(visit: Visit) -> dict[str, Any]:
    for_s = visit.asked("for_s")
    return {
        "reason": visit.asked("reason"),
        "for_s": seconds("for_s", for_s) if for_s else None,
    }
