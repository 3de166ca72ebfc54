"""The overview, workers, lanes, tenants and gates: how the fleet is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from starlette.responses import Response

from afterword.producer.admin.fleet_status import found_in
from afterword.producer.web.console import Visit
from afterword.producer.web.dry_run import after_dry_run, applies
from afterword.producer.web.forms import seconds
from afterword.producer.web.troubles import HOLDING_UP, Trouble, missing_kinds, order_text, troubles
from afterword.shared.ledger.account import total
from afterword.shared.ledger.browsing import Place
from afterword.shared.ledger.dead_letter_records import ReplayState
from afterword.shared.ledger.order_records import SteeringOrder
from afterword.shared.ledger.records import Account
from afterword.shared.ledger.samples import Sample
from afterword.shared.names import RECALL_GATE, REMEMBER_GATE, gate_of

#: Rows of a list that a page shows.
ROWS = 50

#: Samples of an hour, and replay runs that are looked at; those that run are shown.
_HOUR = 60
_RUNS = 10


async def overview(visit: Visit) -> Response:
    """Show in one look whether users wait, and for what."""
    ledger = await visit.console.ledger()
    state, samples = await asyncio.gather(
        visit.console.sampler.look(), ledger.samples.newest(_HOUR + 1)
    )
    return visit.page(
        "overview.html",
        status_now=state.status,
        account=state.account,
        lines=_lines(samples),
        runs=[run for run in state.runs[:_RUNS] if run.state is ReplayState.RUNNING],
        troubles=troubles(
            state.status,
            state.problems,
            over_budget=await _over_budget(visit, state.status["orders"]),
            remembers=_remembers(visit),
        ),
    )


async def troubles_of_fleet(visit: Visit) -> Sequence[Trouble]:
    """Return what lets work wait: missing workers, gates that are not open, orders."""
    found = await found_in(await visit.console.ledger())
    return troubles(found, (), over_budget=0, remembers=_remembers(visit))


async def _over_budget(visit: Visit, orders: Sequence[SteeringOrder]) -> int:
    """Return how many tenants have spent their budget; without any budget it is not looked for."""
    console = visit.console
    if console.settings.budgets or any(order.sets_budget for order in orders):
        return sum(row.is_spent for row in await console.tenant_budgets() or ())
    return 0


def _remembers(visit: Visit) -> bool:
    return visit.console.settings.backend != "off"


def _lines(samples: Sequence[tuple[datetime, Sample]]) -> dict[str, list[float]]:
    """Return what the sparklines show: rates a minute, and figures as they were."""
    found: dict[str, list[float]] = {
        name: [float(getattr(sample, name)) for _, sample in samples]
        for name in ("oldest_ready_s", "users_behind", "users_late", "dead_letters", "queued")
    }
    for name in ("replied", "remembered"):
        found[name] = [
            max(0.0, 60 * (getattr(new, name) - getattr(old, name)) / (to - since).total_seconds())
            for (since, old), (to, new) in pairwise(samples)
            if to > since
        ]
    return found


async def workers(visit: Visit) -> Response:
    """Show the workers that were heard of a moment ago."""
    status = await found_in(await visit.console.ledger())
    missing = missing_kinds(status, remembers=_remembers(visit))
    return visit.page("workers.html", status_now=status, missing=missing)


async def lanes(visit: Visit) -> Response:
    """Show users whose turns are stored now, wait for a worker, or for a later time."""
    browsing = (await visit.console.ledger()).browsing
    places = (Place.RUNNING, Place.READY, Place.DELAYED, Place.HELD)
    rows = await asyncio.gather(*(browsing.lanes_in(place, ROWS) for place in places))
    return visit.page("lanes.html", places=dict(zip(places, rows, strict=True)), most=ROWS)


async def tenants(visit: Visit) -> Response:
    """Show what became of each tenant's jobs and turns; of one tenant, also who waits longest."""
    late_s, tenant = visit.console.options.late_s, visit.asked("tenant")
    accounts = await visit.operator.accounts(late_s=late_s, tenant=tenant or None)
    ordered = sorted(accounts, key=lambda one: (-one.users_late, -one.oldest_s, one.tenant))
    shown: dict[str, Any] = {"accounts": ordered[:ROWS], "count": len(ordered), "tenant": tenant}
    shown |= {"all": total(accounts), "late_s": late_s, "behind": [], "usage": None, "chosen": None}
    loads = await (await visit.console.ledger()).tenants.loads()
    shown["loads"] = [one for one in loads if tenant in ("", one.tenant)][:ROWS]
    if tenant:
        shown |= await _tenant(visit, tenant, accounts)
    return visit.page("tenants.html", **shown)


async def held_up_by(visit: Visit, tenant: str, user_id: str | None) -> Sequence[str]:
    """Return the orders because of which a tenant, or one of its users, waits, in words."""
    return [
        order_text(order)
        for order in await visit.operator.steering.orders()
        if order.kind in HOLDING_UP
        and order.tenant in (None, tenant)
        and order.user_id in (None, user_id)
    ]


async def _tenant(visit: Visit, tenant: str, accounts: Sequence[Account]) -> dict[str, Any]:
    ledger = await visit.console.ledger()
    (budget,) = await ledger.budget_rows.of_tenants([tenant])
    return {
        "held_up": await held_up_by(visit, tenant, None),
        "budget": budget,
        "behind": await ledger.browsing.behind(tenant, ROWS),
        "usage": await visit.console.producer.usage(tenant=tenant),
        "chosen": next(iter(accounts), None),
    }


async def gates(visit: Visit) -> Response:
    """Show the providers that are not called, and why."""
    settings = visit.console.settings
    names = [gate_of(model) for model in (settings.model, *settings.fallback_models)]
    return visit.page(
        "gates.html",
        gates=await visit.operator.gates(),
        names=[*dict.fromkeys(names), RECALL_GATE, REMEMBER_GATE],
    )


async def shut_gate(visit: Visit) -> Response:
    """Stop all calls to a provider, once somebody has seen what that would be."""
    for_s = visit.asked("for_s")
    shut = await visit.operator.shut_gate(
        visit.asked("name"),
        reason=visit.asked("reason"),
        for_s=seconds("for_s", for_s) if for_s else None,
        dry_run=not applies(visit),
    )
    return after_dry_run(visit, back="/gates", button="Shut", gates=[shut])


async def open_gate(visit: Visit) -> Response:
    """Let a provider be called again, once somebody has seen which."""
    name = visit.asked("name")
    shut = [one for one in await visit.operator.gates() if one.name == name]
    was_shut = await visit.operator.open_gate(name, dry_run=not applies(visit))
    button = "Open" if was_shut else ""
    return after_dry_run(visit, back="/gates", button=button, gates=shut)
