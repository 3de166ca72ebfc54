"""Whether a request that Redis did not confirm may have been accepted: never a guess."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis import Redis

from afterword.producer import AsyncProducer, LedgerUnavailable, Producer
from afterword.producer.client.blocking import BlockingJobService
from afterword.producer.client.job_service import Submission
from afterword.producer.client.ledger_job_service import LedgerJobService
from afterword.producer.testing import FakeClock
from afterword.producer.testing.fake_job_service import FakeJobService
from afterword.producer.testing.script import Script
from afterword.shared.errors import JobNotFound
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.transport.blocking import BlockingConnection, Unconfirmed
from afterword.shared.transport.scripts import ScriptCall
from tests.kit.ledger.builder import chat_request
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.servers.valkey import Valkey, free_port
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

OVERVIEW = ScriptCall("maintenance/overview", "afterword:{00}", ("", 1, 1, 10))
HELLO: dict[str, Any] = {"user_id": "ann", "message": "hello"}

#: For how long a request waits for Redis, in seconds: what is to be sent must be sent within this
#: time on a busy machine too, and each test in which nothing answers takes as long.
PATIENCE_S = 3.0


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may stop and configure."""
    with Valkey() as server:
        yield server


@pytest.fixture
def redis(own: Valkey) -> Iterator[Redis]:
    with own.client() as client:
        yield client


@pytest.fixture
def settings(own: Valkey) -> Settings:
    namespace = f"t-{uuid.uuid4().hex[:12]}"
    return Settings(
        redis_url=own.url,
        namespace=namespace,
        durability="none",
        submit_timeout_s=PATIENCE_S,
    )


@pytest.fixture
async def line(own: Valkey) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(own.port) as line:
        yield line


@pytest.fixture
async def producer(settings: Settings, line: FaultyProxy) -> AsyncIterator[AsyncProducer]:
    """Give a producer that has submitted before, so that it is connected and has checked."""
    async with AsyncProducer(settings.model_copy(update={"redis_url": line.url})) as producer:
        await producer.submit(**HELLO)
        yield producer


async def refused(producer: AsyncProducer) -> LedgerUnavailable:
    """Return what one request gets, and at the same time one of several."""
    alone, among = await asyncio.gather(
        producer.submit(**HELLO), producer.submit_many([HELLO]), return_exceptions=True
    )
    assert isinstance(alone, LedgerUnavailable)
    assert not isinstance(among, BaseException)
    (among_many,) = among
    assert isinstance(among_many, LedgerUnavailable)
    assert among_many.may_be_accepted == alone.may_be_accepted
    advice = "may have accepted" if among_many.may_be_accepted else "has not accepted"
    assert advice in str(alone)
    return alone


async def test_a_request_that_was_sent_may_be_accepted(
    producer: AsyncProducer, line: FaultyProxy
) -> None:
    line.swallow_answers_to(b"EVALSHA")
    error = await refused(producer)
    assert (error.may_be_accepted, error.cause) == (True, "silent")


async def test_one_that_was_sent_may_be_accepted_though_nothing_listens_any_more(
    producer: AsyncProducer, line: FaultyProxy
) -> None:
    line.swallow_answers_to(b"EVALSHA")
    asking = asyncio.create_task(producer.submit(**HELLO))
    await until(lambda: line.swallowed, "it has arrived")
    line.close()
    with pytest.raises(LedgerUnavailable) as unavailable:
        await asking
    assert unavailable.value.may_be_accepted
    await line.open()


@pytest.mark.slow
async def test_without_a_connection_it_is_not(producer: AsyncProducer, line: FaultyProxy) -> None:
    line.close()
    with pytest.raises(LedgerUnavailable):  # may still be sent into the connection that was cut
        await producer.submit(**HELLO)
    error = await refused(producer)
    assert (error.may_be_accepted, error.cause) == (False, "refused")
    await line.open()


async def test_what_redis_refuses_it_has_not_accepted(
    producer: AsyncProducer, redis: Redis
) -> None:
    redis.replicaof("127.0.0.1", str(free_port()))
    try:
        error = await refused(producer)
    finally:
        redis.replicaof("NO", "ONE")
    assert (error.may_be_accepted, error.cause) == (False, "read_only")


async def test_before_the_check_nothing_was_sent(settings: Settings, own: Valkey) -> None:
    os.kill(own.pid, signal.SIGSTOP)
    try:
        async with AsyncProducer(settings) as producer:
            assert not (await refused(producer)).may_be_accepted
    finally:
        os.kill(own.pid, signal.SIGCONT)


async def test_what_was_given_up_is_not_sent_once_there_is_a_connection(
    settings: Settings, line: FaultyProxy
) -> None:
    url, request = line.url, chat_request()
    line.close()
    async with Ledger(
        settings.model_copy(update={"redis_url": url}), patience_s=PATIENCE_S
    ) as ledger:
        job_id = ledger.jobs.new_id(request)
        [error] = await ledger.jobs.submit_many([(job_id, request)])
        assert isinstance(error, LedgerUnavailable)
        assert not error.may_be_accepted
        await line.open()
        await ledger.jobs.try_write()
        with pytest.raises(JobNotFound):
            await ledger.queries.status(job_id)


async def test_a_request_that_waits_for_a_connection_is_dropped_when_it_is_given_up(
    settings: Settings, line: FaultyProxy
) -> None:
    request = chat_request()
    async with Ledger(settings.model_copy(update={"redis_url": line.url}), patience_s=5) as ledger:
        job_id = ledger.jobs.new_id(request)
        submit = ledger.jobs.submit_many([(job_id, request)])
        submit.send(None)  # it is posted, and a connection is about to be opened
        with pytest.raises(asyncio.CancelledError):
            submit.throw(asyncio.CancelledError)
        await ledger.jobs.try_write()
        with pytest.raises(JobNotFound):
            await ledger.queries.status(job_id)


# --- a producer without an event loop, which sends from the calling thread first


def told(producer: Producer) -> LedgerUnavailable:
    with pytest.raises(LedgerUnavailable) as unavailable:
        producer.submit(**HELLO)
    return unavailable.value


def test_a_first_try_that_redis_did_not_answer_may_be_accepted(
    settings: Settings, own: Valkey
) -> None:
    with Producer(settings) as producer:
        producer.submit(**HELLO)
        os.kill(own.pid, signal.SIGSTOP)
        try:
            assert told(producer).may_be_accepted
        finally:
            os.kill(own.pid, signal.SIGCONT)


async def test_a_script_whose_answer_is_lost_may_have_run(line: FaultyProxy) -> None:
    connection = BlockingConnection(line.url, timeout_s=5.0)
    line.lose_answer_to(b"EVALSHA")
    with pytest.raises(Unconfirmed):
        await asyncio.to_thread(connection.run_script, OVERVIEW)
    line.close()
    assert await asyncio.to_thread(connection.run_script, OVERVIEW) is None
    await line.open()


class Doubtful(FakeJobService):
    """Jobs whose first try is never answered."""

    unsure = False

    def submit_blocking(self, submission: Submission) -> str | None:
        raise Unconfirmed

    async def submit(
        self, submission: Submission, *, waited_s: float = 0.0, unsure: bool = False
    ) -> str:
        self.unsure = unsure
        return await super().submit(submission, waited_s=waited_s, unsure=unsure)


def test_a_first_try_without_an_answer_is_told_to_the_second() -> None:
    service = Doubtful(Settings(), FakeClock(), Script())
    jobs = BlockingJobService(lambda: service)
    assert jobs.submit(HELLO)
    assert service.unsure
    jobs.close()


async def test_after_a_try_without_an_answer_no_refusal_is_certain(
    settings: Settings, line: FaultyProxy
) -> None:
    service = LedgerJobService.open(settings.model_copy(update={"redis_url": line.url}))
    line.close()
    first, after_one = await asyncio.gather(
        *(service.submit(service.prepare(HELLO), unsure=unsure) for unsure in (False, True)),
        return_exceptions=True,
    )
    for error, unsure in ((first, False), (after_one, True)):
        assert isinstance(error, LedgerUnavailable)
        assert (error.may_be_accepted, error.cause) == (unsure, "refused")
    await service.aclose()
    await line.open()


def test_a_first_try_that_redis_refused_is_not_accepted(settings: Settings, redis: Redis) -> None:
    with Producer(settings) as producer:
        producer.submit(**HELLO)
        redis.replicaof("127.0.0.1", str(free_port()))
        try:
            assert not told(producer).may_be_accepted
        finally:
            redis.replicaof("NO", "ONE")
