"""Durability d3: a submit is answered once replicas have it, and survives the primary's loss."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from redis import Redis

from afterword.producer import AsyncProducer
from afterword.shared.errors import LedgerUnavailable, Misconfigured, NotAccepted, NotReplicated
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import submit_job
from tests.kit.servers.valkey import Valkey, free_port
from tests.kit.waiting import until, wait_until

pytestmark = [pytest.mark.redis, pytest.mark.faults]

PATIENCE_S = 2.0


class Pair:
    """A primary and its replica."""

    def __init__(self, primary: Valkey, replica: Valkey) -> None:
        self.primary = primary
        self.replica = replica

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Stop the replica: it stays connected, and confirms nothing."""
        os.kill(self.replica.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.replica.pid, signal.SIGCONT)

    @contextmanager
    def promoted(self) -> Iterator[Redis]:
        """Let the replica take the place of the primary, and look into it."""
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
            yield client


@pytest.fixture
def pair() -> Iterator[Pair]:
    kept = ("--appendonly", "yes", "--min-replicas-to-write", "1")
    with (
        Valkey(*kept, "--repl-diskless-sync-delay", "0") as primary,
        Valkey(*kept, "--replicaof", f"127.0.0.1 {primary.port}") as replica,
        primary.client() as client,
    ):
        wait_until(lambda: _online(client.info("replication")), "the replica is there", 30)
        yield Pair(primary, replica)


def _online(found: dict[str, object]) -> bool:
    replica = found.get("slave0")
    return isinstance(replica, dict) and replica["state"] == "online"


@pytest.fixture
def settings(pair: Pair, namespace: str) -> Settings:
    return Settings(
        redis_url=pair.primary.url, namespace=namespace, memory="embedded", durability="d3"
    )


@pytest.fixture
async def ledger(settings: Settings) -> AsyncIterator[Ledger]:
    async with Ledger(settings, patience_s=PATIENCE_S) as opened:
        yield opened


async def test_a_submit_is_answered_when_the_replica_has_it(ledger: Ledger, pair: Pair) -> None:
    assert (await ledger.check()).durability == "d3"

    job_id = await submit_job(ledger)

    with pair.replica.client() as client:
        assert client.exists(f"{ledger.settings.namespace}:{{00}}:job:{job_id}")


async def test_without_the_replica_a_submit_has_an_unknown_outcome_and_can_be_repeated(
    settings: Settings, pair: Pair
) -> None:
    async with AsyncProducer(settings) as producer:

        async def send() -> str:
            job = await producer.submit(user_id="ann", message="Hello.", idempotency_key="k")
            return job.id

        await producer.submit(user_id="bob", message="warm up")
        with pair.cut():
            started = time.monotonic()
            for _ in range(2):  # the second writes nothing, and must not be believed either
                with pytest.raises(NotReplicated, match="same idempotency key"):
                    await send()
            assert time.monotonic() - started < 10 * settings.submit_timeout_s, "not for ever"
        assert await send() == await send()


async def test_a_repeated_submit_waits_for_the_replica_even_on_a_new_connection(
    settings: Settings, pair: Pair
) -> None:
    async with Ledger(settings, patience_s=PATIENCE_S) as first:
        with pair.cut():
            with pytest.raises(NotReplicated):
                await submit_job(first, idempotency_key="k")
            async with Ledger(settings, patience_s=PATIENCE_S) as second:
                with pytest.raises(NotReplicated):
                    await submit_job(second, idempotency_key="k")


async def test_many_submits_wait_for_their_replica_together(ledger: Ledger, pair: Pair) -> None:
    await submit_job(ledger)
    before = _calls(pair, "wait")

    await asyncio.gather(*(submit_job(ledger, user_id=f"u{n}") for n in range(200)))

    assert _calls(pair, "wait") - before <= 3


async def test_other_steps_do_not_wait(settings: Settings, pair: Pair) -> None:
    async with Ledger(settings, patience_s=10 * PATIENCE_S) as ledger:
        job_id = await submit_job(ledger)
        with pair.cut():
            submits = [asyncio.create_task(submit_job(ledger, user_id=f"u{n}")) for n in range(20)]
            held = await ledger.jobs.claim(job_id, "token")
            assert held is not None
            assert not any(one.done() for one in submits)
        assert len(await asyncio.gather(*submits)) == 20


async def test_nothing_that_was_answered_is_lost_with_the_primary(
    settings: Settings, pair: Pair, namespace: str
) -> None:
    """The primary is killed while submits are under way, after replication has been cut."""
    answered: set[str] = set()
    refused: list[type[Exception]] = []

    async def send(ledger: Ledger, number: int) -> None:
        try:
            answered.add(await submit_job(ledger, user_id=f"u{number}"))
        except NotAccepted as error:
            refused.append(type(error))

    async with Ledger(settings, patience_s=3 * PATIENCE_S) as ledger:
        sending = [asyncio.create_task(send(ledger, number)) for number in range(100)]
        await until(lambda: answered, "some are answered")
        with pair.cut():
            sending += [asyncio.create_task(send(ledger, 100 + number)) for number in range(100)]
            with pair.primary.client() as client:
                await until(lambda: client.zcard(f"{namespace}:{{00}}:open") == 200, "all written")
            pair.primary.kill()
        await asyncio.gather(*sending)
        with pair.promoted() as client:
            kept = set(client.zrange(f"{namespace}:{{00}}:open", 0, -1))

    assert answered <= kept
    assert len(answered) + len(refused) == 200
    assert len(refused) >= 100


async def test_an_unreplicated_job_would_have_been_lost(settings: Settings, pair: Pair) -> None:
    """The fault is real: at d1 the same cut loses what was answered."""
    with pair.primary.client() as primary, pair.replica.client() as replica:
        primary.config_set("min-replicas-to-write", 0)
        replica.replicaof("127.0.0.1", free_port())
    lax = settings.model_copy(update={"durability": "d1"})
    async with Ledger(lax, patience_s=PATIENCE_S) as ledger:
        job_id = await submit_job(ledger)
    pair.primary.kill()
    with pair.promoted() as client:
        assert not client.exists(f"{settings.namespace}:{{00}}:job:{job_id}")


async def test_a_redis_that_goes_on_alone_is_refused(ledger: Ledger, pair: Pair) -> None:
    with pair.primary.client() as client:
        client.config_set("min-replicas-to-write", 0)

    with pytest.raises(Misconfigured, match="min-replicas-to-write") as refused:
        await ledger.check()

    assert refused.value.setting == "AFTERWORD_DURABILITY"


async def test_too_few_replicas_are_a_reason_to_wait(settings: Settings, pair: Pair) -> None:
    two = settings.model_copy(update={"replicas": 2})
    async with Ledger(two, patience_s=PATIENCE_S) as ledger:
        with pytest.raises(LedgerUnavailable, match="1 of 2"):
            await ledger.check()
        with pytest.raises(NotReplicated, match="1 of 2"):
            await submit_job(ledger)


def _calls(pair: Pair, command: str) -> int:
    with pair.primary.client() as client:
        found = client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
        return int(found["calls"])
