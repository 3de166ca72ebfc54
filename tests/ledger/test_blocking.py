"""A submit from a thread without an event loop: one attempt, and one job whatever happens."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from afterword.producer import Producer
from afterword.producer.portal import Portal
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection
from afterword.shared.transport.scripts import ScriptCall
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.redis, pytest.mark.faults]


#: What a busy machine may take besides; without a limit it would be for ever.
SLACK_S = 10.0


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may stop and make forget its scripts."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


@pytest.fixture
def settings(own: Valkey, namespace: str) -> Settings:
    return Settings(redis_url=own.url, namespace=namespace, memory="embedded")


@pytest.fixture
def producer(settings: Settings) -> Iterator[Producer]:
    """Give a producer that has checked Redis: from now on it submits directly."""
    with Producer(settings) as opened:
        opened.submit(user_id="bob", message="warm up")
        yield opened


def ask(producer: Producer) -> str:
    return producer.submit(user_id="ann", message="hello").id


def test_it_is_sent_from_the_calling_thread(
    producer: Producer, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Portal, "call", None)
        job_id = ask(producer)

    assert inspector.job(job_id)["state"] == "queued"


def test_a_script_that_redis_forgot_is_sent_again(
    producer: Producer, own: Valkey, inspector: LedgerInspector
) -> None:
    with own.client() as client:
        client.script_flush()

    assert inspector.job(ask(producer))["state"] == "queued"


async def test_a_submit_whose_answer_is_lost_creates_one_job(
    settings: Settings, own: Valkey, inspector: LedgerInspector
) -> None:
    def submitted() -> str:
        with Producer(settings.model_copy(update={"redis_url": line.url})) as producer:
            producer.submit(user_id="bob", message="warm up")
            line.lose_answer_to(b"EVALSHA")
            return ask(producer)

    async with FaultyProxy(own.port) as line:
        job_id = await asyncio.to_thread(submitted)

    assert line.lost_answers == 1
    assert inspector.hinted("replies.3").count(job_id) == 1
    assert inspector.counts() == {"job:queued:default": 2, "turn:awaited:default": 2}


def test_it_answers_in_time_while_redis_stands_still(
    producer: Producer, settings: Settings, own: Valkey
) -> None:
    os.kill(own.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(LedgerUnavailable):
            ask(producer)
        took_s = time.monotonic() - began
    finally:
        os.kill(own.pid, signal.SIGCONT)

    assert took_s < settings.submit_timeout_s + SLACK_S
    ask(producer)


def test_the_answer_to_one_that_was_interrupted_is_not_that_of_the_next(
    own: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    root, direct = "afterword:{00}", BlockingConnection(own.url, timeout_s=5.0)
    with own.client() as client:
        monkeypatch.setattr(
            "afterword.shared.transport.scripts.script",
            lambda text, batched: SimpleNamespace(sha=client.script_load(text)),
        )
        with monkeypatch.context() as patch:
            patch.setattr(direct._connection, "read_response", interrupted)
            with pytest.raises(KeyboardInterrupt):
                direct.run_script(ScriptCall("return {'first'}", root, ()))

        assert direct.run_script(ScriptCall("return {'second'}", root, ())) == ["second"]
    direct.close()


def test_a_waiting_thread_does_not_block_another(own: Valkey) -> None:
    direct = BlockingConnection(own.url, timeout_s=5.0)
    with direct._in_use:
        assert direct.run_script(ScriptCall("job/submit", "afterword:{00}", ())) is None
    direct.close()
