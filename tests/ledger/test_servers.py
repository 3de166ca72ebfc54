"""Which server a URL of several means, and what is said if none of them serves."""

from __future__ import annotations

import ast
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ResponseError,
    TryAgainError,
)

from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import SubmitResult
from afterword.shared.names import Keys, memory_key, shard_of
from afterword.shared.settings import Settings
from afterword.shared.transport.causes import WORDS, translated
from afterword.shared.transport.connection import _told_in_cluster
from afterword.shared.transport.importing import FOLLOWED
from tests.kit.ledger.builder import chat_request, claim_job, reply_to, submit_job
from tests.kit.servers.redis_groups import Sentinels, pair, sentinels
from tests.kit.servers.valkey import Valkey, free_port
from tests.kit.waiting import until

pytestmark = [pytest.mark.redis, pytest.mark.finding(5)]

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="module")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with pair() as two, sentinels(two, tmp_path_factory.mktemp("sentinels")) as opened:
        yield opened


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    with Valkey("--appendonly", "yes") as first, Valkey("--appendonly", "yes") as second:
        yield first, second


async def is_named(url: str, cause: str) -> None:
    """Wait until a submit is refused for that cause: a busy server may be silent for a while."""
    await until(lambda: _is_refused(url, cause), f"a submit is refused as {cause}", 20)


async def _is_refused(url: str, cause: str) -> bool:
    refused: LedgerUnavailable | None = None
    async with Ledger(Settings(redis_url=url, durability="none"), patience_s=2.0) as ledger:
        try:
            await submit_job(ledger)
        except LedgerUnavailable as error:
            refused = error
    if refused is None or refused.cause != cause:
        return False
    assert not refused.may_be_accepted, "nothing was sent, or it was refused"
    assert WORDS[cause] in str(refused)
    return True


async def refusal_of(url: str, **others: object) -> str:
    settings = Settings.model_validate({"redis_url": url, **others})
    async with Ledger(settings, patience_s=20.0) as ledger:
        with pytest.raises(Misconfigured) as caught:
            await ledger.check(founds=True)
    return caught.value.cause or str(caught.value)


# --- Sentinels


async def test_a_primary_that_no_sentinel_knows_is_named(watching: Sentinels) -> None:
    await is_named(watching.url.replace(Sentinels.NAME, "other"), "no_primary")


async def test_a_redis_in_the_place_of_a_sentinel_is_named(watching: Sentinels) -> None:
    port = watching.watched.primary.port
    await is_named(f"redis+sentinel://127.0.0.1:{port}/mymaster", "no_sentinel")


async def test_sentinels_that_are_away_are_named() -> None:
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{free_port()}/mymaster"
    await is_named(url, "refused")


async def test_a_sentinel_that_wants_a_login_is_named(watching: Sentinels) -> None:
    port = watching.ports[0]
    url = f"redis+sentinel://127.0.0.1:{port}/mymaster"
    with watching.client(port) as client:
        client.execute_command("ACL", "SETUSER", "default", "resetpass", ">s3cr3t")
    try:
        await is_named(url, "sentinel_refuses")
        settings = Settings(redis_url=f"{url}?sentinel_password=s3cr3t", durability="none")
        async with Ledger(settings, patience_s=20.0) as ledger:
            assert await submit_job(ledger)
    finally:
        with watching.client(port, password="s3cr3t") as client:
            client.execute_command("ACL", "SETUSER", "default", "nopass")


async def test_a_sentinel_that_is_away_holds_up_none_of_the_others(watching: Sentinels) -> None:
    url = watching.url.replace("://", f"://127.0.0.1:{free_port()},")
    async with Ledger(Settings(redis_url=url, durability="none"), patience_s=20.0) as ledger:
        assert await submit_job(ledger)


# --- several hosts


async def test_two_primaries_are_refused(servers: tuple[Valkey, Valkey]) -> None:
    hosts = ",".join(f"127.0.0.1:{one.port}" for one in servers)
    await is_named(f"redis://{hosts}/0", "two_primaries")


async def test_hosts_without_a_primary_are_named(watching: Sentinels) -> None:
    replica = watching.watched.replica.port
    hosts = f"127.0.0.1:{free_port()},127.0.0.1:{replica}"
    await is_named(f"redis://{hosts}/0", "read_only")


async def test_a_login_that_all_hosts_refuse_is_named(watching: Sentinels) -> None:
    url = watching.watched.url.replace("://", "://:s3cr3t@")
    assert await refusal_of(url) == "unwanted_password"


# --- several servers, each with its shards


@pytest.fixture
async def both(
    servers: tuple[Valkey, Valkey], namespace: str
) -> AsyncIterator[tuple[Settings, Ledger]]:
    settings = Settings(
        redis_url=" ".join(one.url for one in servers), namespace=namespace, shards=4
    )
    async with Ledger(settings, patience_s=20.0) as ledger:
        await ledger.check(founds=True)
        yield settings, ledger


async def test_each_shard_is_on_its_server(
    both: tuple[Settings, Ledger], servers: tuple[Valkey, Valkey]
) -> None:
    settings, ledger = both
    users = [f"user-{number}" for number in range(12)]
    jobs = {user: await submit_job(ledger, user_id=user) for user in users}
    for job_id in jobs.values():
        claimed = await claim_job(ledger, job_id)
        await ledger.jobs.finish(claimed, reply_to(claimed))

    for user, job_id in jobs.items():
        shard = shard_of(memory_key("default", user), 4)
        with servers[shard % 2].client() as client:
            assert client.exists(Keys(settings.namespace, shard).job(job_id))
    assert [one async for one in ledger.maintenance.find_inconsistencies()] == []
    assert sum(row.open_jobs for row in await ledger.maintenance.overview()) == 0


async def test_many_jobs_for_several_servers_are_answered_in_their_order(
    both: tuple[Settings, Ledger],
) -> None:
    _, ledger = both
    requests = [chat_request(user_id=f"user-{number}") for number in range(40)]
    ids = [ledger.jobs.new_id(request) for request in requests]

    results = await ledger.jobs.submit_many(zip(ids, requests, strict=True))

    assert [one.job_id for one in results if isinstance(one, SubmitResult)] == ids


async def test_the_servers_of_a_ledger_are_named_in_its_order(
    both: tuple[Settings, Ledger], servers: tuple[Valkey, Valkey]
) -> None:
    settings, ledger = both
    same = {"namespace": settings.namespace, "shards": 4}
    first, second = (one.url for one in servers)

    assert ledger.identity is not None
    assert ledger.identity.servers == 2
    for urls in (f"{second} {first}", second, f"{second} redis://127.0.0.1:{servers[0].port}/1"):
        assert "names server 1 in the place of another" in await refusal_of(urls, **same)
    assert "names 1 servers, and this ledger is on 2" in await refusal_of(first, **same)


async def test_a_server_that_lost_everything_is_refused(
    both: tuple[Settings, Ledger], servers: tuple[Valkey, Valkey]
) -> None:
    settings, _ = both
    same = {"namespace": settings.namespace, "shards": 4}
    for number, server in enumerate(servers):
        key = Keys(settings.namespace, number).identity
        with server.client() as client:
            saved = client.hgetall(key)
            client.delete(key)
            said = await refusal_of(str(settings.redis_url), **same)
            assert "one that has nothing of this ledger" in said
            assert f"server {number + 1}" in said or number == 0
            assert client.exists(key) == 0, "nothing was written"
            client.hset(key, mapping=saved)


async def test_a_ledger_that_was_founded_half_is_founded_to_its_end(
    servers: tuple[Valkey, Valkey], namespace: str
) -> None:
    """A process that died after the second server leaves what the next one goes on from."""
    second = Keys(namespace, 1).identity
    with servers[1].client() as client:
        client.hset(second, mapping={"layout": 1, "shards": 2, "records": 1, "name": "begun"})
        urls = " ".join(one.url for one in servers)
        settings = Settings(redis_url=urls, namespace=namespace, shards=2)
        async with Ledger(settings, patience_s=20.0) as ledger:
            await ledger.check(founds=True)

        assert ledger.identity is not None
        assert ledger.identity.name == "begun"
        assert client.hget(second, "servers") == "2"


# --- a cluster


async def test_a_single_redis_that_is_called_a_cluster_is_named(
    servers: tuple[Valkey, Valkey],
) -> None:
    url = servers[0].url.replace("redis://", "redis+cluster://").removesuffix("/0")
    assert await refusal_of(url, broker_url="redis://broker") == "no_cluster"


async def test_a_cluster_without_a_broker_is_refused() -> None:
    with pytest.raises(Misconfigured, match="AFTERWORD_BROKER_URL: must be set"):
        Ledger(Settings(redis_url="redis+cluster://h"), patience_s=1.0)


def _sent() -> set[str]:
    """Return the names of all commands that are sent one by one."""
    found = set[str]()
    for path in SHARED.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="send_command"), args=[ast.Constant(str(name)), *_]
                ):
                    found.add(name)
    return found


def test_each_command_that_reads_one_key_is_followed_while_a_slot_is_moved() -> None:
    writes = {
        "HDEL", "HSETNX", "INCR", "LPUSH", "PUBLISH", "RPUSH", "SET", "XADD", "XTRIM",
    }  # fmt: skip
    of_no_key = {"CONFIG", "INFO", "PUBSUB", "TIME"}
    # A scan asks whether a key that never exists does: a node that gives keys away must refuse.
    refused = {"EXISTS"}

    assert _sent() - FOLLOWED == writes | of_no_key | refused


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (MovedError("1 h:1"), "slot_moved"),
        (AskError("1 h:1"), "slot_closed"),
        (TryAgainError("x"), "slot_closed"),
        (ClusterDownError("x"), "slot_closed"),
    ],
)
def test_what_a_cluster_refuses_it_has_not_done(said: Exception, cause: str) -> None:
    told: list[list[Any]] = []
    _told_in_cluster(told.append, [said, "OK", ResponseError("other")])

    first, second, third = told[0]
    error = translated(first)
    assert isinstance(error, LedgerUnavailable)
    assert error.cause == cause
    assert not error.may_be_accepted
    assert (second, str(third)) == ("OK", "other")
