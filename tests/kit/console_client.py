"""A console without a network: its application, called as a browser would call it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from afterword.producer.admin.access import Access
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.web.app import create_app
from afterword.producer.web.options import ConsoleOptions
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.listen_address import ListenAddress
from afterword.shared.settings import Settings

LOOPBACK = ConsoleOptions(ListenAddress("127.0.0.1", 9466), by="ann@host")
WITH_KEY = ConsoleOptions(ListenAddress("127.0.0.1", 9466), by="ann@host", require_key=True)

_CSRF = re.compile(r'name="csrf" value="([^"]+)"')


class Browser:
    """Somebody's browser: it keeps cookies, and what makes its forms valid."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.csrf = ""

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """Open a page."""
        return self._noted(await self.client.get(path, **options))

    async def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form of the last page."""
        fields.setdefault("csrf", self.csrf)
        return self._noted(await self.client.post(path, data=fields))

    async def follow(self, answer: httpx.Response) -> httpx.Response:
        """Go where an answer leads."""
        assert answer.status_code == httpx.codes.SEE_OTHER, answer.text
        return await self.get(answer.headers["location"])

    async def log_in(self, key: str) -> httpx.Response:
        """Log in with a key, and open the overview."""
        return await self.follow(await self.client.post("/login", data={"key": key}))

    def _noted(self, answer: httpx.Response) -> httpx.Response:
        if found := _CSRF.search(answer.text):
            self.csrf = found[1]
        return answer


@asynccontextmanager
async def console_client(
    settings: Settings, options: ConsoleOptions = LOOPBACK
) -> AsyncIterator[Browser]:
    """Run a console, and give a browser that has it open."""
    async with browsers(settings, options, 1) as (browser,):
        yield browser


@asynccontextmanager
async def browsers(
    settings: Settings, options: ConsoleOptions, count: int
) -> AsyncIterator[list[Browser]]:
    """Run a console, and give the browsers of several people."""
    app = create_app(settings, options)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        yield [
            Browser(httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9466"))
            for _ in range(count)
        ]


async def new_key(settings: Settings, *scopes: AccessScope, expires_in_s: float = 600.0) -> str:
    """Create a key that may read, and what else is said."""
    async with CheckedLedger.open(settings) as checked:
        access = Access(checked, "ann")
        made = await access.create("bea", {AccessScope.READ, *scopes}, expires_in_s)
        return made.key
