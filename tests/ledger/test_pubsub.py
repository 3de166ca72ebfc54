"""PubSub: one connection for all channels, and no message is missed when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from redis.asyncio import Redis

from afterword.shared.errors import AfterwordError, LedgerUnavailable, Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.transport import pubsub as module
from afterword.shared.transport.connection import connect
from afterword.shared.transport.pubsub import PubSub
from tests.kit.ledger.builder import claim_job, submit_and_claim, submit_job
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = [pytest.mark.redis, pytest.mark.faults]


@pytest.fixture
def restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check a quiet connection after a short time."""
    monkeypatch.setattr(module, "QUIET_S", 0.3)


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey whose subscribers are only those of these tests."""
    with Valkey() as server:
        yield server


@pytest.fixture
async def pubsub(own: Valkey) -> AsyncIterator[PubSub]:
    opened = PubSub(own.url)
    yield opened
    await opened.aclose()


def publish(server: Valkey, channel: str, message: str | bytes) -> int:
    with server.client() as client:
        return int(client.publish(channel, message))


def subscribers(server: Valkey) -> list[dict[str, str]]:
    with server.client() as client:
        return list(client.client_list(_type="pubsub"))


async def test_a_message_published_after_subscribing_is_heard(own: Valkey, pubsub: PubSub) -> None:
    heard: list[str] = []
    async with pubsub.subscribed("c", heard.append):
        assert publish(own, "c", "one") == 1
        await until(lambda: heard == ["one"], "it is heard")


async def test_a_thousand_channels_share_one_connection(own: Valkey, pubsub: PubSub) -> None:
    heard: list[str] = []
    async with AsyncExitStack() as stack:
        contexts = [pubsub.subscribed(f"c{n}", heard.append) for n in range(1000)]
        await asyncio.gather(*(stack.enter_async_context(one) for one in contexts))
        assert len(subscribers(own)) == 1
        for number in (0, 999):
            publish(own, f"c{number}", str(number))
        await until(lambda: heard == ["0", "999"], "both are heard")


async def test_everyone_on_a_channel_hears_until_they_leave(own: Valkey, pubsub: PubSub) -> None:
    one: list[str] = []
    two: list[str] = []
    async with pubsub.subscribed("c", one.append):
        async with pubsub.subscribed("c", two.append):
            publish(own, "c", "a")
            await until(lambda: one == two == ["a"], "both hear")
        publish(own, "c", "b")
        await until(lambda: one == ["a", "b"], "the other one still hears")
    assert two == ["a"]
    await until(lambda: publish(own, "c", "c") == 0, "nobody is subscribed any more")


async def test_a_failing_listener_does_not_stop_others(
    own: Valkey, pubsub: PubSub, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[str] = []

    def deaf(message: str) -> None:
        raise ValueError(message)

    async with pubsub.subscribed("c", deaf), pubsub.subscribed("c", heard.append):
        for count, word in enumerate(("one", "two"), 1):
            publish(own, "c", word)
            await until(lambda: len(heard) == count, "it is heard")  # noqa: B023
    assert heard == ["one", "two"]
    assert "ValueError" in caplog.text
    assert "one" not in caplog.text.replace("None", "")


@pytest.mark.finding(14)
async def test_a_message_that_is_no_text_is_a_message_like_others(
    own: Valkey, pubsub: PubSub
) -> None:
    heard: list[str] = []
    async with pubsub.subscribed("c", heard.append):
        publish(own, "c", b"\xff\xfe")
        publish(own, "c", "one")
        await until(lambda: heard[-1:] == ["one"], "what follows it is heard")
        assert len(heard) == 2
    async with pubsub.subscribed("d", heard.append):
        publish(own, "d", "two")
        await until(lambda: heard[-1:] == ["two"], "later subscriptions are confirmed")


@pytest.mark.finding(14)
async def test_an_error_nobody_thought_of_costs_a_reconnect_and_not_the_reader(
    own: Valkey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def strict(url: str, **options: Any) -> Redis:
        return connect(url, **options | {"undecodable": "strict"})

    monkeypatch.setattr(module, "connect", strict)
    pubsub, heard = PubSub(own.url), list[str]()
    async with pubsub.subscribed("c", heard.append):
        publish(own, "c", b"\xff")
        await until(lambda: heard == [""], "it says that messages may have been missed")
        await until(lambda: publish(own, "c", "one") == 1, "it has subscribed again")
        await until(lambda: heard[-1:] == ["one"], "it hears again")
    await pubsub.aclose()
    assert "UnicodeDecodeError" in caplog.text


async def test_hears_again_after_its_connection_was_killed(own: Valkey, pubsub: PubSub) -> None:
    heard: list[str] = []
    async with pubsub.subscribed("c", heard.append):
        with own.client() as client:
            assert client.client_kill_filter(_type="pubsub") == 1
        await until(lambda: "" in heard, "it is told to look for itself")
        assert publish(own, "c", "after") == 1
        await until(lambda: heard[-1] == "after", "it hears again")


@pytest.mark.finding(14)
async def test_an_error_nobody_thought_of_may_come_while_it_reconnects(
    own: Valkey, pubsub: PubSub, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    failures = [ValueError(), ValueError()]
    resubscribe = PubSub._resubscribe

    async def failing(one: PubSub) -> None:
        if failures:
            raise failures.pop()
        await resubscribe(one)

    monkeypatch.setattr(PubSub, "_resubscribe", failing)
    async with pubsub.subscribed("c", heard.append):
        with own.client() as client:
            assert client.client_kill_filter(_type="pubsub") == 1
        await until(lambda: heard == [""], "it has reconnected in the end")
        await until(lambda: publish(own, "c", "after") == 1, "it has subscribed again")
        await until(lambda: heard[-1] == "after", "it hears again")


async def test_hears_again_after_redis_was_restarted(own: Valkey, pubsub: PubSub) -> None:
    heard: list[str] = []
    async with pubsub.subscribed("c", heard.append):
        await asyncio.to_thread(own.restart)
        await until(lambda: "" in heard, "it is told to look for itself")
        publish(own, "c", "after")
        await until(lambda: heard[-1] == "after", "it hears again")


async def test_a_connection_whose_other_end_vanished_is_noticed(
    own: Valkey, restless: None
) -> None:
    heard: list[str] = []
    async with FaultyProxy(own.port) as line:
        pubsub = PubSub(line.url)
        async with pubsub.subscribed("c", heard.append):
            line.fall_silent()
            publish(own, "c", "into the void")
            await until(lambda: "" in heard, "the silence is noticed")
            assert line.connections == 2
            publish(own, "c", "after")
            await until(lambda: heard[-1] == "after", "it hears again")
        await pubsub.aclose()


async def test_a_quiet_connection_that_lives_is_kept(
    own: Valkey, restless: None, pubsub: PubSub
) -> None:
    heard: list[str] = []
    async with pubsub.subscribed("c", heard.append):
        first = subscribers(own)[0]["id"]
        await until(lambda: subscribers(own)[0]["cmd"] == "ping", "a sign of life is asked for")
        await until(lambda: not pubsub._pinged, "the sign is given")
        assert subscribers(own)[0]["id"] == first
    assert heard == []


async def test_a_connection_without_channels_is_left_in_peace(
    own: Valkey, restless: None, pubsub: PubSub
) -> None:
    async with pubsub.subscribed("c", lambda _: None):
        first = subscribers(own)[0]["id"]
    quiet = asyncio.get_running_loop().time() + 4 * module.QUIET_S
    await until(lambda: asyncio.get_running_loop().time() > quiet, "it was quiet for long")

    async with pubsub.subscribed("c", lambda _: None):
        assert subscribers(own)[0]["id"] == first


async def test_a_redis_that_never_confirms_is_reported(own: Valkey, restless: None) -> None:
    async with FaultyProxy(own.port) as line:
        pubsub = PubSub(line.url)
        async with pubsub.subscribed("c", lambda _: None):
            line.fall_silent()
            with pytest.raises(LedgerUnavailable) as raised:
                async with pubsub.subscribed("d", lambda _: None):
                    raise AssertionError("entered without a confirmation")
        assert (raised.value.cause, raised.value.may_be_accepted) == ("silent", False)
        await pubsub.aclose()


@pytest.mark.parametrize(
    ("url", "kind", "cause"),
    [
        ("redis://127.0.0.1:1/0", LedgerUnavailable, "refused"),
        ("redis://:secret@127.0.0.1:{port}/0", Misconfigured, "unwanted_password"),
    ],
)
async def test_a_subscription_that_fails_says_why(
    own: Valkey, restless: None, url: str, kind: type[AfterwordError], cause: str
) -> None:
    pubsub = PubSub(url.format(port=own.port))
    with pytest.raises(kind) as raised:
        async with pubsub.subscribed("c", lambda _: None):
            raise AssertionError("entered without a confirmation")
    assert getattr(raised.value, "cause", "") == cause
    await pubsub.aclose()


async def test_subscriptions_made_while_redis_is_away_are_made_later(own: Valkey) -> None:
    heard: list[str] = []
    pubsub = PubSub(own.url)
    async with pubsub.subscribed("c", heard.append):
        own.kill()
        entering = pubsub.subscribed("d", heard.append)
        task = asyncio.create_task(entering.__aenter__())
        await asyncio.to_thread(own.start)
        await task
        publish(own, "d", "after")
        await until(lambda: "after" in heard, "the late subscriber hears")
        await entering.__aexit__(None, None, None)
    await pubsub.aclose()


@pytest.fixture
def go_on(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Let a listener read nothing until this is set."""
    as_it_is, go_on = PubSub._read, asyncio.Event()

    async def read_later(self: PubSub) -> None:
        await go_on.wait()
        await as_it_is(self)

    monkeypatch.setattr(PubSub, "_read", read_later)
    return go_on


async def test_a_confirmation_is_never_taken_for_that_of_a_later_subscription(
    own: Valkey, pubsub: PubSub, go_on: asyncio.Event
) -> None:
    """Enter, leave before the confirmation is read, enter again while nothing can be sent."""
    leaving = asyncio.create_task(pubsub.subscribed("c", lambda _: None).__aenter__())
    await until(lambda: publish(own, "c", "early") == 1, "it is subscribed")
    heard: list[str] = []
    async with pubsub._connecting:
        leaving.cancel()
        await asyncio.wait([leaving])
        again = pubsub.subscribed("c", heard.append)
        entering = asyncio.create_task(again.__aenter__())
        go_on.set()
        await asyncio.wait([entering], timeout=0.5)
        assert not (entering.done() and pubsub._queued), "entered, and yet to be left"
    await entering
    publish(own, "c", "now")
    await until(lambda: "now" in heard, "it is heard")
    await again.__aexit__(None, None, None)
    await until(lambda: publish(own, "c", "late") == 0, "nobody is subscribed any more")


async def test_leaving_before_the_confirmation_unsubscribes(
    own: Valkey, pubsub: PubSub, go_on: asyncio.Event
) -> None:
    leaving = asyncio.create_task(pubsub.subscribed("c", lambda _: None).__aenter__())
    await until(lambda: publish(own, "c", "early") == 1, "it is subscribed")
    leaving.cancel()
    await asyncio.wait([leaving])
    go_on.set()
    await until(lambda: publish(own, "c", "late") == 0, "nobody is subscribed any more")


async def test_a_job_wakes_whoever_follows_it(ledger: Ledger) -> None:
    woken: list[str] = []
    job_id = await submit_job(ledger)
    async with ledger.listen_to_job(job_id, woken.append):
        held = await claim_job(ledger, job_id)
        await until(lambda: len(woken) == 1, "the start is heard")
        await ledger.jobs.append_delta(held, 1, "Hel")
        await until(lambda: len(woken) == 2, "the delta is heard")
        await ledger.jobs.fail(held, "broken")
        await until(lambda: len(woken) == 3, "the end is heard")


async def test_only_the_worker_that_runs_a_cancelled_job_is_told(ledger: Ledger) -> None:
    fenced: list[str] = []
    running, queued = await submit_and_claim(ledger), await submit_job(ledger)
    async with ledger.listen_to_fences(fenced.append):
        await ledger.jobs.cancel(queued)
        await ledger.jobs.cancel(running.job_id)
        await until(lambda: fenced == [running.job_id], "only who runs is told")


class _Swallowing:
    """Receives a message at the moment of its cancellation, as redis-py sometimes does."""

    def __init__(self) -> None:
        self.connection = self
        self.asked = asyncio.Event()

    async def get_message(self, *, timeout: float) -> None:
        self.asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    async def aclose(self) -> None:
        """There is nothing to close."""


async def test_a_cancellation_that_is_swallowed_ends_the_reader_all_the_same(
    own: Valkey,
) -> None:
    pubsub = PubSub(own.url)
    pubsub._pubsub = deaf = _Swallowing()
    reader = asyncio.create_task(pubsub._read())
    await deaf.asked.wait()

    reader.cancel()  # once, as an event loop does that is closed
    await asyncio.wait([reader], timeout=5)

    assert reader.done()
