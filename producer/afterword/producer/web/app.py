"""The application: its routes, who may use each, and what is answered if something fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from afterword.producer.web.console import Console, Visit, console_of
from afterword.producer.web.forms import read_form
from afterword.producer.web.headers import SafeHeaders
from afterword.producer.web.options import ConsoleOptions
from afterword.producer.web.rendering import render
from afterword.producer.web.sessions import Session
from afterword.producer.web.views import (
    budgets,
    dead_letters,
    fleet,
    governance,
    jobs,
    login,
    orders,
    public,
)
from afterword.shared.error_location import error_location, error_name
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.logs import LOGGER
from afterword.shared.settings import Settings

READ, CONTENT, OPERATE = AccessScope.READ, AccessScope.CONTENT, AccessScope.OPERATE

_SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class Page:
    """A route: who may use it, and what answers. Without a scope, it is open to everybody."""

    method: str
    path: str
    scope: AccessScope | None
    view: Callable[[Any], Awaitable[Response]]


PAGES = (
    Page("GET", "/", READ, fleet.overview),
    Page("GET", "/jobs", READ, jobs.jobs),
    Page("GET", "/jobs/{job_id}", READ, jobs.job),
    Page("POST", "/jobs/{job_id}/content", CONTENT, jobs.job_content),
    Page("GET", "/users", READ, jobs.user),
    Page("POST", "/users/memories", CONTENT, jobs.user_memories),
    Page("GET", "/lanes", READ, fleet.lanes),
    Page("GET", "/dead-letters", READ, dead_letters.dead_letters),
    Page("POST", "/plans", OPERATE, dead_letters.make_plan),
    Page("GET", "/plans/{plan_id}", OPERATE, dead_letters.plan),
    Page("POST", "/plans/{plan_id}/replay", OPERATE, dead_letters.replay),
    Page("GET", "/runs", READ, dead_letters.runs),
    Page("GET", "/runs/{run_id}", READ, dead_letters.run),
    Page("POST", "/runs/{run_id}/abort", OPERATE, dead_letters.abort),
    Page("POST", "/runs/{run_id}/resume", OPERATE, dead_letters.resume),
    Page("GET", "/gates", READ, fleet.gates),
    Page("POST", "/gates/shut", OPERATE, fleet.shut_gate),
    Page("POST", "/gates/open", OPERATE, fleet.open_gate),
    Page("GET", "/orders", READ, orders.orders),
    Page("POST", "/orders/pause", OPERATE, orders.pause),
    Page("POST", "/orders/strike", OPERATE, orders.strike),
    Page("POST", "/orders/limit", OPERATE, orders.limit),
    Page("POST", "/orders/drain", OPERATE, orders.drain),
    Page("POST", "/orders/lift", OPERATE, orders.lift),
    Page("GET", "/tenants", READ, fleet.tenants),
    Page("GET", "/budgets", READ, budgets.budgets),
    Page("GET", "/workers", READ, fleet.workers),
    Page("GET", "/audit", READ, governance.audit),
    Page("GET", "/keys", OPERATE, governance.keys),
    Page("POST", "/keys/create", OPERATE, governance.create_key),
    Page("POST", "/keys/revoke", OPERATE, governance.revoke_key),
    Page("POST", "/logout", READ, login.logout),
    Page("GET", "/login", None, login.login_page),
    Page("POST", "/login", None, login.login),
    Page("GET", "/healthz", None, public.healthz),
    Page("GET", "/metrics", None, public.metrics),
    Page("GET", "/static/{name}", None, public.static),
)


def create_app(settings: Settings, options: ConsoleOptions) -> Starlette:
    """Return the application; its connections open when it starts and close when it stops."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Console(settings, options) as console:
            app.state.console = console
            console.sampler.start()
            yield

    return Starlette(
        routes=[
            Route(page.path, _answering(page), methods=[page.method], name=_name(page))
            for page in PAGES
        ],
        middleware=[Middleware(SafeHeaders, options=options)],
        exception_handlers={
            HTTPException: _refused,
            AfterwordError: _failed,
            Exception: _bug,
        },
        lifespan=lifespan,
    )


def _name(page: Page) -> str:
    return f"{page.method} {page.path}"


def _answering(page: Page) -> Callable[[Request], Awaitable[Response]]:
    """Return what answers a route: it looks at who asks before the view is called."""

    async def answer(request: Request) -> Response:
        console = console_of(request)
        if page.method == "POST":
            request.state.form = await read_form(request)
        if page.scope is None:
            return await page.view(request)
        cookie = request.cookies.get(login.cookie_name(console), "")
        session = await console.sessions.get(cookie)
        if session is None and console.options.needs_key:
            return _to_login(request)
        if session is None:
            session = await console.sessions.begin(None)
        _check(page, session, request)
        found = await page.view(Visit(request, console, session))
        if session.cookie and session.cookie != cookie:
            login.set_cookie(found, console, session.cookie)
        return found

    return answer


def _check(page: Page, session: Session, request: Request) -> None:
    """Refuse a form that was not made for this session, and what its key may not do."""
    if page.method == "POST":
        form: dict[str, list[str]] = request.state.form
        if not session.accepts(form.get("csrf", [""])[0]):
            raise HTTPException(403, "This form is too old. Go back, reload the page, try again.")
    if page.scope not in session.scopes:
        raise HTTPException(403, f"Your key does not have the scope `{page.scope}`.")


def _to_login(request: Request) -> Response:
    if request.method == "POST":
        raise HTTPException(401, "You are not logged in.")
    here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return RedirectResponse(f"/login?next={quote(here, safe='')}", 303)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error_page(request, error.status_code, error.detail)


async def _failed(request: Request, error: Exception) -> Response:
    """Answer with an error of ours: its text holds no content and no secret."""
    assert isinstance(error, AfterwordError)
    return _error_page(request, error.http_status, str(error), error.http_headers)


async def _bug(request: Request, error: Exception) -> Response:
    """Answer with nothing about the error, and log where it happened, not what it held."""
    LOGGER.error("console: %s at %s: this is a bug", error_name(error), error_location(error))
    text = "This is a bug. The log of the console says where."
    return _error_page(request, _SERVER_ERROR, text)


def _error_page(
    request: Request, status: int, text: str, headers: dict[str, str] | None = None
) -> HTMLResponse:
    shown = {"status": status, "text": text, "back": _came_from(request)}
    return HTMLResponse(render("error.html", shown), status, headers)


def _came_from(request: Request) -> str:
    """Return the page of this console on which somebody was before, '' if there was none."""
    try:
        before = urlsplit(request.headers.get("referer", ""))
    except ValueError:
        return ""
    path = before.path + (f"?{before.query}" if before.query else "")
    is_ours = before.netloc == request.headers.get("host") and before.path.startswith("/")
    is_here = path == request.url.path or before.path.startswith("//")
    return path if is_ours and not is_here else ""
