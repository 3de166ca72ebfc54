"""Preflight: a Redis that may lose what it accepted is refused before anything is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from afterword.shared.errors import Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.transport.pipeline import Pipeline
from afterword.shared.transport.preflight import Preflight, check
from tests.kit.servers.valkey import Valkey

pytestmark = pytest.mark.redis

GOOD = {"redis_version": "7.4.0", "maxmemory_policy": "noeviction", "aof_enabled": "1"}


class Told:
    """A pipeline to a Redis that replies what a test says."""

    def __init__(self, fsync: str | Exception = "everysec", **said: str) -> None:
        self._said = GOOD | said
        self._fsync = fsync

    async def send_command(self, *command: str) -> Any:
        if command == ("INFO",):
            return self._said
        assert command == ("CONFIG", "GET", "appendfsync")
        if isinstance(self._fsync, Exception):
            raise self._fsync
        return ["appendfsync", self._fsync] if self._fsync else []


async def checked(told: Told, **settings: Any) -> Preflight:
    return await check([cast(Pipeline, told)], Settings(**settings))


async def refused(told: Told, **settings: Any) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        await checked(told, **settings)
    return caught.value


async def test_a_fit_redis_is_described() -> None:
    assert await checked(Told()) == Preflight("redis 7.4.0", "noeviction", "d1", ())


async def test_a_valkey_is_judged_by_its_own_version() -> None:
    found = await checked(Told(redis_version="7.2.4", valkey_version="8.0.1"))

    assert found.server == "valkey 8.0.1"


@pytest.mark.parametrize("version", ["6.2.14", "5.0", "6.9.9"])
async def test_a_version_that_is_too_old_is_refused(version: str) -> None:
    error = await refused(Told(redis_version=version))

    assert error.setting == "AFTERWORD_REDIS_URL"
    assert version in str(error)
    assert "7.0" in str(error)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_redis_that_evicts_is_refused(policy: str) -> None:
    error = await refused(Told(maxmemory_policy=policy))

    assert error.setting == "AFTERWORD_REDIS_URL"
    assert policy in str(error)
    assert "noeviction" in str(error)


@pytest.mark.parametrize("durability", ["d1", "d2"])
async def test_a_redis_without_a_file_is_refused(durability: str) -> None:
    error = await refused(Told("always", aof_enabled="0"), durability=durability)

    assert error.setting == "AFTERWORD_REDIS_URL"
    assert "AFTERWORD_DURABILITY=none" in str(error)


async def test_durability_none_accepts_a_redis_without_a_file() -> None:
    assert (await checked(Told(aof_enabled="0"), durability="none")).durability == "none"


@pytest.mark.parametrize("fsync", ["everysec", "no", "", ResponseError("unknown command CONFIG")])
async def test_d2_needs_to_see_that_every_write_is_kept(fsync: str | Exception) -> None:
    error = await refused(Told(fsync), durability="d2")

    assert error.setting == "AFTERWORD_DURABILITY"
    assert "appendfsync always" in str(error)


async def test_d2_accepts_appendfsync_always() -> None:
    assert (await checked(Told("always"), durability="d2")).durability == "d2"


@pytest.fixture(scope="module")
def own() -> Iterator[Valkey]:
    """Give a Valkey that these tests may configure."""
    with Valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        yield server


async def test_nothing_is_written_to_a_redis_that_is_refused(own: Valkey) -> None:
    with own.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        async with Ledger(Settings(redis_url=own.url), patience_s=5.0) as ledger:
            with pytest.raises(Misconfigured, match="allkeys-lru"):
                await ledger.check()
        client.config_set("maxmemory-policy", "noeviction")

        assert client.dbsize() == 0


async def test_a_real_valkey_is_read_as_it_is(own: Valkey) -> None:
    async with Ledger(Settings(redis_url=own.url, durability="d2"), patience_s=5.0) as ledger:
        found = await ledger.check()

    assert found.server.startswith("valkey ")
    assert found.durability == "d2"
