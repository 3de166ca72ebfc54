"""Whatever keeps a Redis from us is named in one line, with what to do, and without a secret."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from afterword.producer import AsyncProducer
from afterword.producer.cli.checks.ledger import look_at_ledger
from afterword.shared.errors import LedgerUnavailable, Misconfigured, NotAccepted
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.transport import pubsub
from afterword.shared.transport.causes import MISCONFIGURED_WORDS, WORDS, spoken, translated
from afterword.shared.transport.connection import NotConnected
from afterword.shared.transport.pubsub import PubSub
from afterword.shared.urls import LOCAL_SOCKET
from afterword.workers.local_stack.valkey import find_binary
from tests.kit.ledger.builder import submit_job
from tests.kit.servers.certificate import needs_openssl, server_context
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey, free_port
from tests.kit.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.finding(5), pytest.mark.finding(8)]

SECRET = "s3cr3t"


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may configure."""
    with Valkey("--appendonly", "yes") as server:
        yield server


@pytest.fixture
def redis(own: Valkey) -> Iterator[Redis]:
    with own.client() as client:
        yield client


async def said(url: str, *, patience_s: float = 0.3) -> Exception:
    """Return what the check of a Redis raises, which is also what a submit raises."""
    async with Ledger(Settings(redis_url=url), patience_s=patience_s) as ledger:
        raised = []
        for step in (ledger.check, lambda: submit_job(ledger)):
            with pytest.raises((Misconfigured, NotAccepted)) as caught:
                await step()
            raised.append(caught.value)
        checked, submitted = raised
    assert type(checked) is type(submitted)
    assert not getattr(submitted, "may_be_accepted", False), "there was no connection"
    for error in raised:
        if isinstance(error, Misconfigured):
            assert error.cause in MISCONFIGURED_WORDS
        assert str(error).startswith("AFTERWORD_REDIS_URL: ")
        assert SECRET not in str(error)
        assert "\n" not in str(error)
    return checked


async def cause_of(url: str, *, patience_s: float = 0.3) -> str:
    error = await said(url, patience_s=patience_s)
    assert isinstance(error, LedgerUnavailable)
    assert WORDS[error.cause] in str(error)
    assert not error.may_be_accepted, "there was no connection"
    return error.cause


async def refusal_of(url: str) -> str:
    error = await said(url)
    assert isinstance(error, Misconfigured), error
    return error.cause


# --- no connection


async def test_a_port_where_nothing_listens_is_named() -> None:
    assert await cause_of(f"redis://:{SECRET}@127.0.0.1:{free_port()}/0") == "refused"


def test_a_host_that_is_unknown_is_named() -> None:
    error = NotConnected(tls=False)  # as redis-py raises it: no test may ask for a name
    error.__cause__ = RedisConnectionError("Error -2 connecting")
    error.__cause__.__cause__ = socket.gaierror(-2, "Name or service not known")

    found = translated(error)

    assert isinstance(found, LedgerUnavailable)
    assert found.cause == "no_such_host"


async def test_a_socket_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert await cause_of(f"unix://{tmp_path}/none.sock?password={SECRET}") == "no_such_file"


async def test_of_the_local_stack_it_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has set its URL."""
    monkeypatch.setattr(pubsub, "QUIET_S", 0.3)
    url = f"unix://{tmp_path}/{LOCAL_SOCKET}?db=0"
    settings = Settings(redis_url=url, submit_timeout_s=0.3)
    raised: list[str] = []
    async with Ledger(settings, patience_s=0.2) as ledger, AsyncProducer(settings) as producer:
        steps: list[Callable[[], Awaitable[object]]] = [
            ledger.check,
            lambda: submit_job(ledger),
            lambda: producer.submit(user_id="ann", message="hello"),
            partial(heard, url),
        ]
        for step in steps:
            with pytest.raises(LedgerUnavailable) as caught:
                await step()
            raised.append(str(caught.value))
    raised += [found.detail + found.remedy for found in await look_at_ledger(settings)]
    for told in raised:
        assert told.startswith("the local stack: its Redis does not run (tried for ")
        assert "`afterword up` or `afterword chat`" in told
        assert "AFTERWORD_REDIS_URL" not in told
    assert len(raised) == 5


@pytest.mark.parametrize("cause", ["busy", "cannot_persist", "too_many_clients"])
def test_a_local_stack_that_runs_is_not_said_to_start_again(cause: str) -> None:
    reason = f"AFTERWORD_REDIS_URL: Redis does not answer: {WORDS[cause]}"
    told = spoken(reason, f"unix:///a/{LOCAL_SOCKET}", cause)
    assert told == f"the local stack: Redis does not answer: {WORDS[cause]}"


async def heard(url: str) -> None:
    listener = PubSub(url)
    try:
        async with listener.subscribed("a channel", lambda _: None):
            pass
    finally:
        await listener.aclose()


async def test_a_server_that_hangs_up_is_named() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        assert await cause_of(f"redis://127.0.0.1:{port}/0") == "closed_at_once"


async def test_a_server_that_is_no_redis_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(f"HTTP/1.1 400 {SECRET}\r\n\r\n".encode())
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await refusal_of(f"redis://127.0.0.1:{port}/0") == "no_redis"


async def test_a_server_that_never_answers_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        port = nobody_accepts.getsockname()[1]
        assert await cause_of(f"redis://127.0.0.1:{port}/0") == "silent"


async def test_a_redis_that_pauses_is_waited_for(own: Valkey, redis: Redis) -> None:
    async with Ledger(Settings(redis_url=own.url), patience_s=5.0) as ledger:
        await ledger.check()
        redis.client_pause(300)

        assert await submit_job(ledger)


# --- TLS


@pytest.fixture
async def tls(own: Valkey, certificate: Path) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(own.port, server_context(certificate)) as opened:
        yield opened


@needs_openssl
async def test_a_certificate_that_is_not_trusted_is_named(tls: FaultyProxy) -> None:
    error = await said(tls.url, patience_s=3.0)

    assert "self-signed certificate" in str(error)
    assert isinstance(error, LedgerUnavailable)
    assert error.cause == "untrusted_certificate"


@needs_openssl
async def test_a_server_that_wants_tls_is_told_from_one_that_does_not(
    tls: FaultyProxy, own: Valkey
) -> None:
    plain = tls.url.replace("rediss:", "redis:")
    encrypted = own.url.replace("redis:", "rediss:")

    assert await cause_of(plain, patience_s=3.0) == "closed_at_once"
    assert await cause_of(encrypted, patience_s=3.0) == "no_tls"


@needs_openssl
async def test_a_certificate_file_that_is_not_there_is_named(tls: FaultyProxy) -> None:
    assert await cause_of(f"{tls.url}?ssl_ca_certs=/nowhere.pem") == "no_such_file"


# --- it answers, but not us


def with_login(own: Valkey, login: str, database: int = 0) -> str:
    return f"redis://{login}@127.0.0.1:{own.port}/{database}"


async def test_a_wrong_password_is_named(own: Valkey, redis: Redis) -> None:
    redis.acl_setuser("ann", enabled=True, passwords=["+right"], commands=["+@all"], keys=["*"])

    assert await refusal_of(with_login(own, f"ann:{SECRET}")) == "wrong_password"
    assert await refusal_of(with_login(own, f"bob:{SECRET}")) == "wrong_password"


async def test_a_password_that_nobody_wants_is_named(own: Valkey) -> None:
    assert await refusal_of(with_login(own, f":{SECRET}")) == "unwanted_password"


async def test_a_missing_password_is_named(own: Valkey, redis: Redis) -> None:
    redis.config_set("requirepass", SECRET)
    try:
        assert await refusal_of(own.url) == "no_password"
    finally:
        redis.config_set("requirepass", "")


async def test_a_database_that_is_not_there_is_named(own: Valkey) -> None:
    assert await refusal_of(f"redis://127.0.0.1:{own.port}/99") == "no_such_database"


@pytest.mark.parametrize(
    ("rights", "named"),
    [
        (["+@all", "-info", "-evalsha", "-eval"], ["INFO", "EVALSHA"]),
        (["+@all", "-@scripting", "-info"], ["INFO", "EVALSHA"]),
    ],
)
async def test_a_command_that_a_user_may_not_run_is_named(
    own: Valkey, redis: Redis, rights: list[str], named: list[str]
) -> None:
    redis.acl_setuser("eve", reset=True, enabled=True, nopass=True, commands=rights, keys=["*"])
    url = with_login(own, f"eve:{SECRET}")

    async with Ledger(Settings(redis_url=url), patience_s=5.0) as ledger:
        steps: list[Callable[[], Awaitable[object]]] = [ledger.check, partial(submit_job, ledger)]
        for step, command in zip(steps, named, strict=True):
            with pytest.raises(Misconfigured, match=f"may not run {command},") as refused:
                await step()
            assert refused.value.cause == "forbidden_command"


async def test_keys_that_a_user_may_not_use_are_named(own: Valkey, redis: Redis) -> None:
    redis.acl_setuser(
        "kim", reset=True, enabled=True, nopass=True, commands=["+@all"], keys=["x:*"]
    )

    async with Ledger(Settings(redis_url=with_login(own, "kim:x")), patience_s=5.0) as ledger:
        with pytest.raises(Misconfigured, match="AFTERWORD_NAMESPACE") as refused:
            await submit_job(ledger)
    assert refused.value.cause == "forbidden_keys"


# --- another kind of server


async def test_a_node_of_a_cluster_is_named() -> None:
    # Its own port for the cluster: 10,000 above an ephemeral one is none.
    bus = ("--cluster-port", str(free_port()))
    with Valkey("--cluster-enabled", "yes", *bus) as node, node.client() as client:
        assert await refusal_of(node.url) == "cluster"  # it has no slots
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 8000)
        wait_until(lambda: client.cluster("info")["cluster_slots_assigned"] == "8001", "slots", 5)
        assert await refusal_of(node.url) == "cluster"


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[str]:
    port, file = free_port(), tmp_path / "sentinel.conf"
    file.write_text(f"port {port}\nbind 127.0.0.1\n")
    command = [str(find_binary()), str(file), "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        with Redis(port=port) as client:
            wait_until(lambda: answers(client), "the Sentinel answers", 10)
        yield f"redis://127.0.0.1:{port}/0"
        process.kill()


def answers(client: Redis) -> bool:
    with suppress(RedisConnectionError):
        return bool(client.ping())
    return False


async def test_a_sentinel_is_named(sentinel: str) -> None:
    assert await refusal_of(sentinel) == "sentinel"
