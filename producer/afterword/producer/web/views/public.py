"""What is answered without a login: health, metrics, and the files that pages load."""

from __future__ import annotations

import hmac
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from afterword.producer.web.console import Console, console_of
from afterword.shared.errors import AfterwordError

_STATIC = Path(__file__).parents[1] / "static"

#: Read once. What is not named here is not served.
_FILES = {
    "console.css": ((_STATIC / "console.css").read_bytes(), "text/css; charset=utf-8"),
    "console.js": ((_STATIC / "console.js").read_bytes(), "text/javascript; charset=utf-8"),
    "icon.svg": ((_STATIC / "icon.svg").read_bytes(), "image/svg+xml"),
}


async def healthz(request: Request) -> Response:
    """Answer 200 while the ledger can be read, else 503."""
    try:
        await (await console_of(request).ledger()).dead_letters.redis_time()
    except AfterwordError:
        return PlainTextResponse("the ledger does not answer\n", 503)
    return PlainTextResponse("ok\n")


async def metrics(request: Request) -> Response:
    """Answer as `afterword metrics --listen` does."""
    console = console_of(request)
    if not _may_scrape(request, console):
        return PlainTextResponse("401 Unauthorized\n", 401, {"WWW-Authenticate": "Bearer"})
    text = await console.scrape()
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _may_scrape(request: Request, console: Console) -> bool:
    """Return whether a scrape bears the token; without one, only this machine may scrape."""
    token = console.settings.metrics_token
    if token is None:
        return not console.options.needs_key
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    wanted = token.get_secret_value().encode()
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted)
    return same and scheme.lower() == "bearer"


async def static(request: Request) -> Response:
    """Answer with one of the files that pages load."""
    found = _FILES.get(request.path_params["name"])
    if found is None:
        return PlainTextResponse("404 Not Found\n", 404)
    body, kind = found
    return Response(body, media_type=kind, headers={"Cache-Control": "no-cache"})
