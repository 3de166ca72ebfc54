"""What a queued job takes of Redis, on a server that is set as ours are."""

from __future__ import annotations

import pytest

from afterword.producer import AsyncProducer
from afterword.shared.settings import Settings
from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

_COUNT = 2000
_KB = 1024

#: Beside its message, in bytes: what docs/explanation/performance.md promises.
_MOST = 1.3 * _KB


async def test_a_queued_job_takes_little_more_than_its_message() -> None:
    with Valkey() as server, server.client() as redis:
        asked = [
            {"user_id": f"user-{number}", "message": f"{number} ".ljust(_KB, ".")}
            for number in range(_COUNT)
        ]
        async with AsyncProducer(Settings(redis_url=server.url, durability="none")) as producer:
            await producer.submit_many(asked[:1])
            before = redis.info("memory")["used_memory"]
            [*jobs] = await producer.submit_many(asked)
        taken = (redis.info("memory")["used_memory"] - before) / _COUNT

        assert len(jobs) == _COUNT
        assert taken - _KB < _MOST
