"""The wire: everyone reads their own replies, whatever happens to the others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.errors import LedgerUnavailable
from shared.ledger.door import BATCH, Door
from shared.ledger.wire import Wire
from tests.standins.valkey import Valkey
from tests.standins.waiting import until


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may stop."""
    with Valkey() as server:
        yield server


@pytest.fixture
async def wire(own: Valkey) -> AsyncIterator[Wire]:
    opened = Wire(own.socket_url, timeout_s=5.0)
    yield opened
    await opened.aclose()


async def test_exchanges_at_the_same_time_get_their_own_replies(wire: Wire) -> None:
    asked = [[("ECHO", f"{name}-{number}") for number in range(300)] for name in range(5)]

    replies = await asyncio.gather(*map(wire.exchange, asked))

    assert replies == [[text for _, text in one] for one in asked]


async def test_an_error_is_the_reply_of_its_own_command(wire: Wire) -> None:
    first, wrong, last = await wire.exchange([("ECHO", "a"), ("NO_SUCH",), ("ECHO", "b")])

    assert (first, last) == ("a", "b")
    assert isinstance(wrong, Exception)


@pytest.mark.parametrize("who", [0, 1], ids=["who reads", "who waits to read"])
async def test_nobody_reads_the_replies_of_who_gave_up(wire: Wire, own: Valkey, who: int) -> None:
    await wire.exchange([("PING",)])
    os.kill(own.pid, signal.SIGSTOP)
    try:
        asked = [asyncio.create_task(wire.exchange([("ECHO", name)])) for name in ("one", "two")]
        await until(lambda: len(wire._reading._waiters or ()) == 1, "both have written")
        asked[who].cancel()
        await asyncio.wait([asked[who]])
        comes_later = asyncio.create_task(wire.exchange([("ECHO", "new")]))
        await asyncio.wait([asked[1 - who]], timeout=5.0)
    finally:
        os.kill(own.pid, signal.SIGCONT)

    with pytest.raises(RedisConnectionError):
        await asked[1 - who]
    assert await comes_later == ["new"]


async def test_a_wire_that_stays_silent_is_given_up(own: Valkey) -> None:
    wire = Wire(own.socket_url, timeout_s=0.2)
    os.kill(own.pid, signal.SIGSTOP)
    try:
        with pytest.raises(TimeoutError):
            await wire.exchange([("PING",)])
        assert wire.broken
    finally:
        os.kill(own.pid, signal.SIGCONT)

    assert await wire.exchange([("ECHO", "again")]) == ["again"]
    await wire.aclose()


async def test_of_many_runs_only_those_that_were_not_confirmed_are_run_again(own: Valkey) -> None:
    door = Door(own.socket_url, patience_s=5.0)
    with own.client() as client:
        client.script_flush()

    answers = await door.run_all("overview", (("afterword:{00}", ("",)) for _ in range(2 * BATCH)))

    assert len(answers) == 2 * BATCH
    assert not [one for one in answers if isinstance(one, Exception)]
    await door.aclose()


async def test_many_runs_without_a_redis_are_each_refused(tmp_path: object) -> None:
    door = Door(f"unix://{tmp_path}/none.sock", patience_s=0.2)

    answers = await door.run_all("overview", [("afterword:{00}", ("",))] * 3)

    assert {type(one) for one in answers} == {LedgerUnavailable}
    await door.aclose()
