"""A console on loopback, served from a thread of this process, and a Chromium that opens it."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
import uvicorn
from playwright.sync_api import Browser, sync_playwright

from afterword.producer.web.app import create_app
from afterword.producer.web.options import ConsoleOptions
from afterword.shared.settings import Settings
from tests.kit.waiting import wait_until

Value = TypeVar("Value")

#: What Chromium is started with: it must need neither a display nor anything outside.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip

#: What anything in a browser may take on a busy machine, in milliseconds.
PATIENCE_MS = 120_000.0


class ServedConsole:
    """A console that listens, and the event loop that it lives on."""

    def __init__(self, url: str, settings: Settings, loop: asyncio.AbstractEventLoop) -> None:
        self.url = url
        self.settings = settings
        self._loop = loop

    def run(self, coroutine: Coroutine[Any, Any, Value]) -> Value:
        """Run something on the loop of the console, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_MS / 1000)


@contextmanager
def served_console(settings: Settings, options: ConsoleOptions) -> Iterator[ServedConsole]:
    """Serve a console until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_app(settings, options), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        loops: list[asyncio.AbstractEventLoop] = []
        thread = threading.Thread(target=_serve, args=(server, listening, loops))
        thread.start()
        try:
            wait_until(lambda: server.started, "the console serves", 30)
            url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            yield ServedConsole(url, settings, loops[0])
        finally:
            server.should_exit = True
            thread.join(PATIENCE_MS / 1000)
            assert not thread.is_alive(), "the console has not ended"


def _serve(
    server: uvicorn.Server, listening: socket.socket, loops: list[asyncio.AbstractEventLoop]
) -> None:
    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([listening])

    asyncio.run(serve())


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start Chromium; skip the test if this machine has none."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("there is no Chromium here: apt-get install chromium")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program, args=list(_FLAGS), timeout=PATIENCE_MS
        )
        try:
            yield browser
        finally:
            browser.close()
