"""A ping raises what a submit would, also when Redis was fit before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from redis import Redis

from afterword.producer import AsyncProducer, LedgerUnavailable, QueueFull
from afterword.shared.errors import NotAccepted
from afterword.shared.settings import Settings
from tests.kit.servers.valkey import Valkey, free_port

pytestmark = pytest.mark.redis


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may configure."""
    with Valkey("--appendonly", "yes") as server:
        yield server


@pytest.fixture
async def producer(own: Valkey) -> AsyncIterator[AsyncProducer]:
    async with AsyncProducer(Settings(redis_url=own.url, submit_timeout_s=1.0)) as producer:
        yield producer


@pytest.mark.parametrize(
    ("begin", "end", "expected", "status"),
    [
        pytest.param(
            lambda redis: redis.config_set("maxmemory", 1),
            lambda redis: redis.config_set("maxmemory", 0),
            QueueFull, 503, id="full",
        ),
        pytest.param(
            lambda redis: redis.replicaof("127.0.0.1", str(free_port())),
            lambda redis: redis.replicaof("NO", "ONE"),
            LedgerUnavailable, 503, id="read-only",
        ),
    ],
)  # fmt: skip
async def test_a_redis_that_takes_no_writes_any_more_is_not_ready(
    own: Valkey,
    producer: AsyncProducer,
    begin: Callable[[Redis], object],
    end: Callable[[Redis], object],
    expected: type[NotAccepted],
    status: int,
) -> None:
    await producer.ping()
    with own.client() as redis:
        begin(redis)
        try:
            with pytest.raises(expected) as refused:
                await producer.ping()
        finally:
            end(redis)
    assert refused.value.http_status == status
    await producer.ping()


async def test_a_ping_leaves_nothing_behind(own: Valkey, producer: AsyncProducer) -> None:
    await producer.ping()
    with own.client() as redis:
        before = set(redis.scan_iter())
        await producer.ping()
        assert set(redis.scan_iter()) == before
