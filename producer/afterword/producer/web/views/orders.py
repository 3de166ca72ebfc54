"""Orders to the running fleet: planned, given and lifted, exactly as the command line does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast, get_args
from urllib.parse import urlencode

from starlette.responses import Response

from afterword.producer.admin.async_steering import (
    PAUSES,
    QUEUES,
    AsyncSteering,
    Work,
    WorkerKind,
    in_force,
    whom_in,
    whom_of,
)
from afterword.producer.web.console import Visit
from afterword.producer.web.dry_run import after_dry_run, applies
from afterword.producer.web.forms import limits_of, point_in_time, seconds
from afterword.producer.web.views.budgets import consequence
from afterword.shared.contracts import DEFAULT_TENANT
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder
from afterword.shared.ledger.orders import Whom

#: What a pause is called in a form, by what it stops.
_PAUSES = {kind: work for work, kind in PAUSES.items()}
_STRIKES = (OrderKind.BLOCK, OrderKind.SLOW)

_ORDERS, _WORKERS = "/orders", "/workers"


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
    given = await _steering(visit).pause(
        _work(visit.asked("work")),
        tenant=visit.asked("tenant") or None,
        user_id=visit.asked("user_id") or None,
        **_terms(visit),
    )
    return await _given(visit, [given], "Pause", given.kind)


async def strike(visit: Visit) -> Response:
    """Block a tenant or a user, or slow their replies down."""
    given = await _steering(visit).strike(
        visit.asked("tenant") or DEFAULT_TENANT,
        user_id=visit.asked("user_id") or None,
        every_s=_optional(visit, "every_s", seconds),
        **_terms(visit),
    )
    button = "Block" if given.kind is OrderKind.BLOCK else "Slow down"
    return await _given(visit, [given], button, *_STRIKES)


async def limit(visit: Visit) -> Response:
    """Set a tenant's caps, weight and budgets."""
    tenant, limits = visit.asked("tenant"), limits_of(visit.asked)
    given = await _steering(visit).limit(tenant, limits, **_terms(visit))
    note = "" if applies(visit) else await consequence(visit, tenant, limits)
    visit.console.budgets_changed(tenant)
    back = _page_of(visit, tenant)
    return await _given(visit, [given], "Set limits", given.kind, back=back, note=note)


async def drain(visit: Visit) -> Response:
    """Let a worker, or all of a kind, finish what it holds, and end."""
    steering, kind, reason = _steering(visit), visit.asked("kind"), visit.asked("reason")
    if kind and visit.asked("worker"):
        raise InvalidRequest("worker", "give a worker or a kind, not both")
    if kind:
        given = await steering.drain_kind(_worker_kind(kind), reason=reason)
    else:
        given = [await steering.drain(visit.asked("worker"), reason=reason)]
    return await _given(visit, given, "Drain", OrderKind.DRAIN, back=_WORKERS)


async def lift(visit: Visit) -> Response:
    """Lift an order: a pause, a block, a slowdown, or a tenant's limits."""
    steering, kind = _steering(visit), visit.asked("kind")
    tenant, user_id = visit.asked("tenant") or None, visit.asked("user_id") or None
    kinds: tuple[OrderKind, ...]
    if kind in _PAUSES:
        kinds, whom = (OrderKind(kind),), whom_of(tenant, user_id)
    elif kind in _STRIKES and tenant:
        kinds, whom = _STRIKES, Whom(tenant, user_id)
    elif kind == OrderKind.LIMITS and tenant:
        kinds, whom = (OrderKind.LIMITS,), Whom(tenant)
    else:
        raise InvalidRequest("kind", "must be one of the orders that are in force")
    lifted = await in_force(steering, kinds, whom)
    if kind in _PAUSES:
        await steering.resume(_PAUSES[OrderKind(kind)], tenant=tenant, user_id=user_id)
    elif kinds == _STRIKES:
        await steering.lift_strike(whom.tenant or "", user_id=user_id)
    else:
        await steering.lift_limits(whom.tenant or "")
        visit.console.budgets_changed(whom.tenant or "")
    back = _page_of(visit, whom.tenant)
    return after_dry_run(
        visit, orders=lifted, replaced=[], button="Lift" if lifted else "", back=back
    )


def _page_of(visit: Visit, tenant: str | None) -> str:
    """Return where an order was begun: on the page of orders, or on that of a tenant's budget."""
    if visit.asked("page") == "budgets":
        return f"/budgets?{urlencode({'tenant': tenant or ''})}"
    return _ORDERS


def _steering(visit: Visit) -> AsyncSteering:
    """Return what gives orders, or what only says which it would give."""
    steering = visit.operator.steering
    return steering if applies(visit) else steering.dry_run()


async def _given(
    visit: Visit,
    given: Sequence[SteeringOrder],
    button: str,
    *kinds: OrderKind,
    back: str = _ORDERS,
    note: str = "",
) -> Response:
    """Lead on once orders are given; before that, show them and those whose place they take."""
    replaced = []
    if not applies(visit):
        for one in given:
            replaced += await in_force(visit.operator.steering, kinds, whom_in(one))
    return after_dry_run(
        visit, orders=given, replaced=replaced, button=button, back=back, note=note
    )


def _work(text: str) -> Work:
    if text not in get_args(Work):
        raise InvalidRequest("work", "must be replies or memories")
    return cast("Work", text)


def _worker_kind(text: str) -> WorkerKind:
    if text not in QUEUES:
        raise InvalidRequest("kind", "must be responses or memories")
    return cast("WorkerKind", text)


def _terms(visit: Visit) -> dict[str, Any]:
    return {
        "reason": visit.asked("reason"),
        "for_s": _optional(visit, "for_s", seconds),
        "until": _optional(visit, "until", point_in_time),
    }


def _optional(visit: Visit, field: str, read: Callable[[str, str], Any]) -> Any:
    text = visit.asked(field)
    return read(field, text) if text else None
