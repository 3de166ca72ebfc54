"""The reconnector: every command gets its own reply, whatever happens to the others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.transport.connection import Command, NotConnected, Reconnector
from afterword.shared.transport.pipeline import BATCH, Pipeline
from afterword.shared.transport.scripts import ScriptCall
from tests.kit.ledger.builder import is_broken
from tests.kit.servers.valkey import Valkey

OVERVIEW = ScriptCall("maintenance/overview", "afterword:{00}", ("", 1, 1, 10))


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may stop."""
    with Valkey() as server:
        yield server


@pytest.fixture
async def reconnector(own: Valkey) -> AsyncIterator[Reconnector]:
    opened = Reconnector(own.socket_url, timeout_s=5.0)
    await replies_to(opened, ("PING",))  # it is connected
    yield opened
    await opened.aclose()


def replies_to(reconnector: Reconnector, *commands: Command) -> asyncio.Future[list[Any]]:
    """Send commands, over a new connection if there is none; return the future of their replies."""
    replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    def send(error: Exception | None = None) -> None:
        if error is None:
            reconnector.send(commands, replies.set_result)
        else:
            replies.set_result([error] * len(commands))

    if reconnector.connected:
        send()
    else:
        reconnector.connect(send)
    return replies


async def test_exchanges_at_the_same_time_get_their_own_replies(reconnector: Reconnector) -> None:
    commands = [[("ECHO", f"{name}-{number}") for number in range(300)] for name in range(5)]

    replies = await asyncio.gather(*(replies_to(reconnector, *some) for some in commands))

    assert replies == [[text for _, text in some] for some in commands]


async def test_an_error_is_the_reply_of_its_own_command(reconnector: Reconnector) -> None:
    first, wrong, last = await replies_to(reconnector, ("ECHO", "a"), ("NO_SUCH",), ("ECHO", "b"))

    assert (first, last) == ("a", "b")
    assert isinstance(wrong, Exception)


async def test_a_command_that_cannot_be_encoded_is_refused_and_the_next_is_answered(
    reconnector: Reconnector,
) -> None:
    await replies_to(reconnector, ("PING",))

    (refused,) = await replies_to(reconnector, ("ECHO", "\ud800"))

    assert isinstance(refused, UnicodeEncodeError)
    assert await replies_to(reconnector, ("ECHO", "new")) == ["new"]


async def test_a_reply_may_come_in_any_pieces(reconnector: Reconnector) -> None:
    text = "ä€" * 1_000_000  # more than a socket gives at a time, and cut within characters

    assert await replies_to(reconnector, ("ECHO", text), ("ECHO", "b")) == [text, "b"]


async def test_a_connection_that_is_cut_fails_every_command_in_flight(
    reconnector: Reconnector, own: Valkey
) -> None:
    await replies_to(reconnector, ("PING",))
    waiting = [
        replies_to(reconnector, ("BLPOP", "no-such-list", 60), ("ECHO", "a")),
        replies_to(reconnector, ("ECHO", "b")),
    ]
    own.kill()
    await asyncio.to_thread(own.start)

    replies = [reply for one in waiting for reply in await one]

    assert [type(reply) for reply in replies] == [RedisConnectionError] * 3
    assert await replies_to(reconnector, ("ECHO", "new")) == ["new"]


async def test_a_connection_that_stays_silent_is_closed(own: Valkey) -> None:
    reconnector = Reconnector(own.socket_url, timeout_s=0.2)
    await replies_to(reconnector, ("PING",))
    os.kill(own.pid, signal.SIGSTOP)
    try:
        (refused,) = await replies_to(reconnector, ("PING",))
        assert isinstance(refused, TimeoutError)
        assert is_broken(reconnector)
        (refused,) = await replies_to(reconnector, ("PING",))  # nor does it answer a new connection
        assert isinstance(refused, NotConnected)
        assert isinstance(refused.__cause__, TimeoutError)
    finally:
        os.kill(own.pid, signal.SIGCONT)

    assert await replies_to(reconnector, ("ECHO", "again")) == ["again"]
    await reconnector.aclose()


async def test_a_connection_that_goes_on_answering_is_not_given_up(own: Valkey) -> None:
    reconnector = Reconnector(own.socket_url, timeout_s=0.5)
    slow: Command = ("BLPOP", "no-such-list", 0.1)

    assert await replies_to(reconnector, *[slow] * 8) == [None] * 8
    await reconnector.aclose()


async def test_of_many_scripts_only_those_without_a_reply_are_run_again(own: Valkey) -> None:
    pipeline = Pipeline(own.socket_url, patience_s=5.0)
    with own.client() as client:
        client.script_flush()

    answers = await pipeline.run_scripts(OVERVIEW for _ in range(2 * BATCH))

    assert len(answers) == 2 * BATCH
    assert not [one for one in answers if isinstance(one, Exception)]
    await pipeline.aclose()


async def test_many_scripts_without_a_redis_each_get_an_error(tmp_path: object) -> None:
    pipeline = Pipeline(f"unix://{tmp_path}/none.sock", patience_s=0.2)

    answers = await pipeline.run_scripts([OVERVIEW] * 3)

    assert {type(one) for one in answers} == {LedgerUnavailable}
    await pipeline.aclose()
