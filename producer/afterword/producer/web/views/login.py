"""Logging in with a key, and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from afterword.producer.web.console import Console, Visit, console_of
from afterword.producer.web.rendering import render
from afterword.producer.web.sessions import LIFETIME_S

_LONGEST_KEY = 200
_UNAUTHORIZED, _TOO_MANY = 401, 429


async def login_page(request: Request) -> Response:
    """Show the form; without a need for keys there is nothing to do here."""
    if not console_of(request).options.needs_key:
        return RedirectResponse("/", 303)
    return _form(request)


async def login(request: Request) -> Response:
    """Begin the session of a key."""
    console, address = console_of(request), request.client.host if request.client else ""
    if console.logins.refuses(address):
        return _form(request, "Too many attempts. Wait a minute.", _TOO_MANY)
    form: dict[str, list[str]] = request.state.form
    text = form.get("key", [""])[0].strip()
    key = await console.access("").find(text) if len(text) <= _LONGEST_KEY else None
    if key is None:
        console.logins.failed(address)
        return _form(request, "This key is unknown, expired or revoked.", _UNAUTHORIZED)
    session = await console.sessions.begin(key)
    answer = RedirectResponse(_own_page(form.get("next", ["/"])[0]), 303)
    set_cookie(answer, console, session.cookie)
    return answer


async def logout(visit: Visit) -> Response:
    """End the session."""
    name = cookie_name(visit.console)
    await visit.console.sessions.end(visit.session)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(name, secure=visit.console.options.is_https, httponly=True)
    return answer


def cookie_name(console: Console) -> str:
    """Return what the cookie is called; with HTTPS, no other host can have set it."""
    return "__Host-afterword" if console.options.is_https else "afterword_console"


def set_cookie(answer: Response, console: Console, cookie: str) -> None:
    """Give the browser the cookie of its session."""
    answer.set_cookie(
        cookie_name(console),
        cookie,
        max_age=LIFETIME_S,
        secure=console.options.is_https,
        httponly=True,
        samesite="strict",
    )


def _form(request: Request, problem: str = "", status: int = 200) -> HTMLResponse:
    then = _own_page(request.query_params.get("next", "/"))
    return HTMLResponse(render("login.html", {"problem": problem, "next": then}), status)


def _own_page(path: str) -> str:
    """Return a path of this console; browsers read `//host` and a backslash as another one."""
    is_ours = path.startswith("/") and not path.startswith("//") and "\\" not in path
    return path if is_ours and path.isprintable() else "/"
