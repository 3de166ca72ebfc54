"""Who has how much of the workers, and of their budgets, for operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.portal import Portal
from afterword.shared.arguments import AnyId, Id, Limit, checked
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.budget_rows import BudgetPage, BudgetRow
from afterword.shared.ledger.tenants import TenantLoads, whole
from afterword.shared.names import MAX_SHOWN

Row = TypeVar("Row")


class AsyncTenants:
    """Shows how tenants share workers, and what they spend. Returned by `AsyncOperator.tenants`."""

    def __init__(self, ledger: Callable[[], CheckedLedger]) -> None:
        self._ledger = ledger

    @checked
    async def busiest(self, limit: Limit = 20, *, after: AnyId | None = None) -> TenantLoads:
        """Return up to `limit` tenants, those with most waiting jobs first, and counts of all.

        The figures of a tenant are not of exactly one moment, and the order changes meanwhile.

        Args:
            limit: the most tenants.
            after: a tenant, such as the last of the page before: only those behind it.

        Raises:
            InvalidRequest: `after` has no jobs and had none in the last hour.

        """
        loads = await (await self._ledger().for_reading()).tenants.loads()
        names, gone = [one.tenant for one in loads], "has no jobs, and had none in the last hour"
        tenants, more = _page(loads, names, limit, after, gone)
        return replace(whole(loads), tenants=tenants, more=more)

    @checked
    async def budgets(
        self, tenant: Id | None = None, *, limit: Limit = 20, after: AnyId | None = None
    ) -> BudgetPage:
        """Return tenants, or users of one, those first who have spent most of their budget.

        The figures are not of exactly one moment, and the order changes meanwhile. Nothing is
        changed.

        Args:
            tenant: list the users of this tenant who have spent something in the running period;
                all tenants if omitted.
            limit: the most rows.
            after: a tenant, or user, such as the last of the page before: only those behind it.

        Raises:
            InvalidRequest: `after` is not in the list any more.

        """
        reader = (await self._ledger().for_reading()).budget_rows
        rows, complete = await (reader.tenants() if tenant is None else reader.users(tenant))
        return budget_page(rows, limit, after, complete=complete)


class Tenants:
    """Shows how tenants share workers, and what they spend. Returned by `Operator.tenants`."""

    def __init__(self, portal: Portal, tenants: AsyncTenants) -> None:
        self._portal = portal
        self._tenants = tenants

    def busiest(self, limit: Limit = 20, *, after: AnyId | None = None) -> TenantLoads:
        """Return up to `limit` tenants, those with most waiting jobs first, and counts of all.

        The figures of a tenant are not of exactly one moment, and the order changes meanwhile.

        Args:
            limit: the most tenants.
            after: a tenant, such as the last of the page before: only those behind it.

        Raises:
            InvalidRequest: `after` has no jobs and had none in the last hour.

        """
        return self._portal.call(self._tenants.busiest(limit, after=after))

    def budgets(
        self, tenant: Id | None = None, *, limit: Limit = 20, after: AnyId | None = None
    ) -> BudgetPage:
        """Return tenants, or users of one, those first who have spent most of their budget.

        The figures are not of exactly one moment, and the order changes meanwhile. Nothing is
        changed.

        Args:
            tenant: list the users of this tenant who have spent something in the running period;
                all tenants if omitted.
            limit: the most rows.
            after: a tenant, or user, such as the last of the page before: only those behind it.

        Raises:
            InvalidRequest: `after` is not in the list any more.

        """
        return self._portal.call(self._tenants.budgets(tenant, limit=limit, after=after))


def budget_page(
    rows: Sequence[BudgetRow], limit: int, after: str | None, *, complete: bool = True
) -> BudgetPage:
    """Return the rows behind a tenant, or user; raise `InvalidRequest` if it is not among them."""
    names = [one.user_id or one.tenant for one in rows]
    found, more = _page(rows, names, limit, after, "is not in this list")
    return BudgetPage(found, len(rows), more, complete)


def _page(
    rows: Sequence[Row], names: Sequence[str], limit: int, after: str | None, gone: str
) -> tuple[Sequence[Row], bool]:
    """Return the rows behind the one that is named `after`, and whether there are more.

    Raises `InvalidRequest` with the reason `gone` if none is named so.
    """
    if after is not None and after not in names:
        raise InvalidRequest("after", f"{after[:MAX_SHOWN]} {gone}")
    start = 0 if after is None else names.index(after) + 1
    return rows[start : start + limit], start + limit < len(rows)
