"""Who has how much of the workers, for operators."""

from __future__ import annotations

from collections.abc import Callable

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.portal import Portal
from afterword.shared.arguments import AnyId, Limit, checked
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.tenants import TenantLoads, page_of
from afterword.shared.names import MAX_SHOWN


class AsyncTenants:
    """Shows how tenants share the response workers. Returned by `AsyncOperator.tenants`."""

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
        page = page_of(loads, limit, after)
        if page is None:
            shown = (after or "")[:MAX_SHOWN]
            raise InvalidRequest("after", f"{shown} has no jobs, and had none in the last hour")
        return page


class Tenants:
    """Shows how tenants share the response workers. Returned by `Operator.tenants`."""

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
