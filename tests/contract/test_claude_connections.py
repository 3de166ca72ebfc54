"""Every way in which no connection to Claude comes about, and the error that names it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from afterword.shared.errors import ProviderError
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import ChatMessage, Prompt
from tests.kit.claude_api.failure_cases import CONNECTIONS, SECRET
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.secrecy import assert_quotes_nothing
from tests.kit.servers.certificate import needs_openssl, server_context
from tests.kit.servers.faulty_proxy import FaultyProxy

pytestmark = [
    pytest.mark.finding(8),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # the SDK's, for a proxy
]

KEY = "sk-canary-key"
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def claude() -> AsyncIterator[ClaudeStandIn]:
    async with ClaudeStandIn() as claude:
        yield claude


async def assert_fails_as(case: str, url: str) -> None:
    """Ask Claude at a URL, and compare the error with its row."""
    model = Claude(
        api_key=KEY, base_url=url, connections=2, total_s=20, first_event_s=20, idle_s=20
    )
    prompt = Prompt((), (ChatMessage("user", SECRET),), "claude-sonnet-5-5", 100, "tag")
    with pytest.raises(ProviderError) as caught:
        await anext(model.stream_answer(prompt))
    await model.aclose()
    error = caught.value
    assert (type(error), error.code) == CONNECTIONS[case]
    assert_quotes_nothing(error, SECRET, KEY, "hidden")


async def test_no_server_listens() -> None:
    await assert_fails_as("nothing listens at the address", f"http://{NOBODY}")


async def test_no_such_host(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    await assert_fails_as("the host name is unknown", "http://nowhere.test:1")


@needs_openssl
async def test_an_untrusted_certificate(claude: ClaudeStandIn, certificate: Path) -> None:
    async with FaultyProxy(claude.port, server_context(certificate)) as front:
        await assert_fails_as(
            "the certificate is not trusted", f"{front.url[:-2]}".replace("rediss", "https")
        )


async def test_a_server_without_tls() -> None:
    async with serving(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n") as port:
        await assert_fails_as("it does not speak TLS", f"https://127.0.0.1:{port}")


async def test_a_proxy_that_is_not_there(
    claude: ClaudeStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://user:hidden@{NOBODY}")
    await assert_fails_as("a proxy cannot be reached", claude.url)


async def test_a_proxy_that_refuses_us(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n") as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:hidden@127.0.0.1:{port}")
        await assert_fails_as("a proxy refuses us", "https://nowhere.test")


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[int]:
    """Give every connection one answer, whatever it says; yield the port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
