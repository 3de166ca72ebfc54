"""What all pages share while a console runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import HTMLResponse

from afterword.producer.admin.access import Access
from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.fleet_metrics import FleetCollector
from afterword.producer.admin.tenants import AsyncTenants
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.client.async_client import AsyncProducer
from afterword.producer.web.background import BackgroundReader
from afterword.producer.web.options import ConsoleOptions
from afterword.producer.web.rendering import render
from afterword.producer.web.replays import Replays
from afterword.producer.web.sampler import Sampler
from afterword.producer.web.sessions import LoginLimit, Session, Sessions
from afterword.shared.clock import utc_now
from afterword.shared.closeable import AsyncCloseable
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.ledger.budget_rows import BudgetPage, BudgetRow
from afterword.shared.ledger.console_sessions import ConsoleSessions
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.metrics_server import new_registry
from afterword.shared.settings import Settings

#: Scrapes within this time, in seconds, share one look at the ledger.
_LOOK_S = 5.0

#: Users of a tenant whose spending is shown, those who have spent most.
_USERS = 50

#: For how long a page waits until it is known what tenants have spent; the next look shows it then.
_BUDGETS_S = 0.2


class Console(AsyncCloseable):
    """The ledger's connections, and the replays that this process drives."""

    def __init__(self, settings: Settings, options: ConsoleOptions) -> None:
        self.settings = settings
        self.options = options
        self.checked = CheckedLedger.open(settings)
        self.producer = AsyncProducer(settings)
        by = None if options.needs_key else options.by
        self.sessions = Sessions(self._sessions, self.access("").get, by, _now_s)
        self.logins = LoginLimit(time.monotonic)
        self.replays = Replays(time.monotonic)
        self.sampler = Sampler(self.checked, options.late_s)
        self.user_budgets = BackgroundReader(self._budgets_of_users)
        self._tenant_budgets = BackgroundReader(self._budgets_of_tenants)
        self._collector = FleetCollector()
        self._registry = new_registry("afterword console", self._collector)
        self._scraped_s = -_LOOK_S
        self._operators: dict[str, AsyncOperator] = {}

    async def scrape(self) -> bytes:
        """Return the metrics of the fleet; several scrapes in a few seconds share one look."""
        from prometheus_client import generate_latest

        if time.monotonic() - self._scraped_s >= _LOOK_S:
            self._scraped_s = time.monotonic()
            try:
                self._collector.state = await self.sampler.look()
            except AfterwordError:
                self._collector.state = None
        return generate_latest(self._registry)

    def operator(self, by: str) -> AsyncOperator:
        """Return the operator whose name the audit shows; there are as many as keys were used."""
        if by not in self._operators:
            self._operators[by] = AsyncOperator(self.settings, by=by)
        return self._operators[by]

    def access(self, by: str) -> Access:
        """Return what creates and revokes keys in somebody's name."""
        return Access(self.checked, by)

    async def ledger(self) -> Ledger:
        """Return the ledger to read from."""
        return await self.checked.for_reading()

    async def tenant_budgets(self) -> Sequence[BudgetRow] | None:
        """Return what tenants have spent, those nearest to their budget first.

        It is as of some seconds ago at most: all pages that show it share one look at the ledger.
        None if that takes longer than a page waits: a later page has it.
        """
        return await self._tenant_budgets.get("", wait_s=_BUDGETS_S)

    def budgets_changed(self, tenant: str) -> None:
        """Look again at what was read of budgets, since an order has changed one."""
        self.user_budgets.forget(tenant)
        self._tenant_budgets.forget("")

    async def _budgets_of_tenants(self, _: str) -> Sequence[BudgetRow]:
        rows, _complete = await (await self.ledger()).budget_rows.tenants()
        return rows

    async def _budgets_of_users(self, tenant: str) -> BudgetPage:
        return await AsyncTenants(lambda: self.checked).budgets(tenant, limit=_USERS)

    async def _sessions(self) -> ConsoleSessions:
        return (await self.ledger()).console_sessions

    async def aclose(self) -> None:
        """Abort the replays that this process drives, and close all connections."""
        await self.sampler.aclose()
        await asyncio.gather(self.user_budgets.aclose(), self._tenant_budgets.aclose())
        operators = [operator.aclose() for operator in self._operators.values()]
        await asyncio.gather(*operators, self.replays.aclose(), return_exceptions=True)
        await asyncio.gather(self.producer.aclose(), self.checked.aclose())


class Visit:
    """A request of somebody who is logged in, as the pages see it."""

    def __init__(self, request: Request, console: Console, session: Session) -> None:
        self.request = request
        self.console = console
        self.session = session
        self.form: dict[str, list[str]] = request.state.form if _has_form(request.state) else {}

    @property
    def operator(self) -> AsyncOperator:
        """Return the operator who acts in the name of this session."""
        return self.console.operator(self.session.by)

    @property
    def path(self) -> dict[str, Any]:
        """Return the parts of the path."""
        return dict(self.request.path_params)

    def asked(self, name: str, default: str = "") -> str:
        """Return a parameter of the form, or of the query."""
        if name in self.form:
            return self.form[name][0].strip()
        return self.request.query_params.get(name, default).strip()

    def may(self, scope: str) -> bool:
        """Return whether this session has a scope."""
        return AccessScope(scope) in self.session.scopes

    def page(self, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """Return a page."""
        shown = {"visit": self, "here": self.request.url.path, "options": self.console.options}
        return HTMLResponse(render(template, shown | values), status)


def _now_s() -> float:
    return utc_now().timestamp()


def _has_form(state: State) -> bool:
    return hasattr(state, "form")


def console_of(request: Request) -> Console:
    """Return the console that answers a request."""
    found: Console = request.app.state.console
    return found
