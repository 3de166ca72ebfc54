"""What every answer says to the browser, and which requests get no answer."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterword.producer.web.options import ConsoleOptions

#: Nothing is loaded from elsewhere, and nothing that stands in a page is run.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_OWN = ("same-origin", "none")
_YEAR_S = 31_536_000


class SafeHeaders:
    """Adds headers to every answer; refuses a foreign host, and forms of other sites."""

    def __init__(self, app: ASGIApp, options: ConsoleOptions) -> None:
        self._app = app
        self._options = options
        self._headers = dict(_HEADERS)
        if options.is_https:
            self._headers["strict-transport-security"] = f"max-age={_YEAR_S}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused:
            answer = PlainTextResponse(f"{refused}\n", 403 if scope["method"] == "POST" else 400)
            await answer(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)

    def _refusal(self, method: str, headers: Headers) -> str:
        """Return why a request is refused, '' if it is not."""
        host = headers.get("host", "")
        if not self._options.accepts_host(host):
            return "This console does not answer to that name."
        if method == "POST" and not _is_own(headers, host):
            return "Forms of other sites are refused."
        return ""


def _is_own(headers: Headers, host: str) -> bool:
    """Return whether a form was sent by a page of this console, as far as its browser says."""
    origin = headers.get("origin")
    same = origin is None or urlsplit(origin).netloc.lower() == host.lower()
    return same and headers.get("sec-fetch-site", "none") in _OWN
