"""Budgets: what tenants and their users have spent, what is left, and who set what they may."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from starlette.responses import Response

from afterword.producer.admin.tenants import budget_page
from afterword.producer.web.console import Visit
from afterword.producer.web.views.fleet import ROWS
from afterword.shared.budgets import share_spent
from afterword.shared.ledger.order_records import SteeringOrder, TenantLimits

#: For how long a page waits for what users have spent; after that it comes by itself.
_USERS_S = 0.2


async def budgets(visit: Visit) -> Response:
    """Show who is nearest to a limit: of all tenants, or of the users of one."""
    tenant = visit.asked("tenant")
    return await (_tenant(visit, tenant) if tenant else _tenants(visit))


async def _tenants(visit: Visit) -> Response:
    after = visit.asked("after")
    rows = await visit.console.tenant_budgets()
    page = None if rows is None else budget_page(rows, ROWS, after or None)
    return visit.page(
        "budgets.html",
        page=page,
        orders=await _orders(visit),
        spent=sum(row.is_spent for row in rows or ()),
        soft=visit.console.settings.budget_soft,
        after=after,
        next_page=urlencode({"after": page.rows[-1].tenant}) if page and page.more else "",
    )


async def _tenant(visit: Visit, tenant: str) -> Response:
    ledger = await visit.console.ledger()
    (row,) = await ledger.budget_rows.of_tenants([tenant])
    return visit.page(
        "budget.html",
        tenant=tenant,
        row=row,
        order=(await _orders(visit)).get(tenant),
        of_a_user=await ledger.spending.of_a_user(tenant),
        page=await visit.console.user_budgets.get(tenant, wait_s=_USERS_S),
        soft=visit.console.settings.budget_soft,
    )


async def _orders(visit: Visit) -> Mapping[str, SteeringOrder]:
    """Return the orders that set a budget, by tenant."""
    orders = await visit.operator.steering.orders()
    return {order.tenant: order for order in orders if order.sets_budget and order.tenant}


async def consequence(visit: Visit, tenant: str, limits: TenantLimits) -> str:
    """Return how much of a new budget of a tenant is spent already, '' if it sets none."""
    reader = (await visit.console.ledger()).budget_rows
    (row,) = await reader.of_tenants([tenant])
    share = share_spent(row.spent_usd, limits.tenant_usd, row.spent_tokens, limits.tenant_tokens)
    if share is None:
        return ""
    if share >= 1.0:
        return "It has spent as much in this period already: its new requests are refused at once."
    return f"It has spent {share:.0%} of that in this period already."
