"""Each cause of a lost connection to memory has a code of its own, and repeats nothing."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from pydantic import SecretStr

from afterword.shared.errors import (
    AccessDenied,
    Misconfigured,
    ProviderError,
    Unavailable,
)
from afterword.shared.settings import Settings
from afterword.workers.adapters.http import verdict_of_connection
from afterword.workers.adapters.mem0.hosted import open_hosted
from afterword.workers.adapters.mem0.pgvector.database import (
    check_login,
    connection_pool,
    translate_postgres_errors,
    verdict_of_login,
)
from tests.kit.secrecy import assert_quotes_nothing
from tests.kit.servers.certificate import needs_openssl, server_context
from tests.kit.servers.valkey import free_port

pytestmark = pytest.mark.finding(8)

SECRET = "canary-secret"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


# -- over HTTP


async def failure_at(url: str) -> ProviderError:
    memories = await open_hosted(
        Settings(mem0_api_key=SecretStr(SECRET), mem0_host=url), connections=1
    )
    with pytest.raises(ProviderError) as caught:
        await memories.search("ann", f"about {SECRET}", 1)
    await memories.aclose()
    assert_quotes_nothing(caught.value, SECRET, url)
    return caught.value


async def test_a_port_where_nothing_listens_is_named() -> None:
    error = await failure_at(f"http://127.0.0.1:{free_port()}")
    assert (type(error), error.code) == (Unavailable, "connection_refused")


async def test_a_server_that_hangs_up_is_unreachable() -> None:
    async with served(hang_up) as port:
        error = await failure_at(f"http://127.0.0.1:{port}")
    assert (type(error), error.code) == (Unavailable, "unreachable")


@needs_openssl
async def test_a_certificate_that_is_not_trusted_is_named(certificate: Path) -> None:
    async with served(hang_up, server_context(certificate)) as port:
        error = await failure_at(f"https://127.0.0.1:{port}")
    assert (type(error), error.code) == (AccessDenied, "untrusted_certificate")


async def test_a_server_that_speaks_no_tls_is_named() -> None:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with served(answer) as port:
        error = await failure_at(f"https://127.0.0.1:{port}")
    assert (type(error), error.code) == (AccessDenied, "no_tls")


def test_a_host_that_is_unknown_is_named() -> None:
    error = OSError(f"Cannot connect to host {SECRET}")
    error.__cause__ = socket.gaierror(-2, "Name or service not known")
    assert verdict_of_connection(error) == (Unavailable, "no_such_host")


# -- PostgreSQL


def refusing(message: str) -> Serve:
    """Answer a login with an error of PostgreSQL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        fields = f"SFATAL\0C28000\0M{message}\0\0".encode()
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        await writer.drain()
        writer.close()

    return serve


async def no_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(8)
    writer.write(b"N")
    await writer.drain()
    writer.close()


async def login_at(port: int, options: str = "sslmode=disable") -> Exception:
    url = f"postgresql://ann:{SECRET}@127.0.0.1:{port}/db?{options}"
    with pytest.raises((Misconfigured, Unavailable)) as caught:
        await asyncio.to_thread(check_login, url)
    assert_quotes_nothing(caught.value, SECRET)
    return caught.value


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ('password authentication failed for user "ann"', "refuses this user or password"),
        ('no pg_hba.conf entry for host "::1", user "ann", no encryption', "without TLS"),
        ('no pg_hba.conf entry for host "::1", user "ann", SSL encryption', "refuses this user"),
        ('database "db" does not exist', "no such database"),
    ],
)
async def test_why_postgresql_refuses_a_login_is_named(message: str, words: str) -> None:
    async with served(refusing(f"{message} {SECRET}")) as port:
        error = await login_at(port)
    assert isinstance(error, Misconfigured)
    assert words in error.reason


async def test_a_postgresql_without_tls_is_named() -> None:
    async with served(no_tls) as port:
        error = await login_at(port, "sslmode=require")
    assert "speaks no TLS" in str(error)


@pytest.mark.parametrize(
    "said",
    [
        "SSL error: certificate verify failed",
        'root certificate file "/x/root.crt" does not exist',
        'server certificate for "a" does not match host name "b"',
    ],
)
def test_a_certificate_that_postgresql_shows_is_named(said: str) -> None:
    found = verdict_of_login(psycopg.OperationalError(f"connection failed: {said}"))
    assert found == (AccessDenied, "untrusted_certificate")


async def test_a_postgresql_that_is_full_or_away_may_come_back() -> None:
    async with served(refusing("sorry, too many clients already")) as port:
        assert str(await login_at(port)) == "store_full"
    assert str(await login_at(free_port())) == "connection_refused"


async def test_a_pool_says_why_it_has_no_connection() -> None:
    """A password that was changed while a worker runs is not an outage of the database."""
    async with served(refusing("password authentication failed")) as port:
        pool = connection_pool(f"postgresql://ann@127.0.0.1:{port}/db?sslmode=disable", 1)
        pool.timeout = 0.5
        pool.open()

        def use() -> None:
            with translate_postgres_errors(pool, writing=False), pool.connection():
                raise AssertionError

        with pytest.raises((AccessDenied, Unavailable)) as caught:
            await asyncio.to_thread(use)
        await asyncio.to_thread(pool.close)
    assert (type(caught.value), caught.value.code) == (AccessDenied, "store_refused")
