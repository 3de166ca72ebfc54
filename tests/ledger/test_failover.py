"""Several Redis servers: a job that was accepted outlives a failover and a move, and is no double.

Each test puts a ledger under load, ends or moves what it stands on, and accounts for every job.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from kombu import Producer, Queue
from redis.crc import key_slot

from afterword.shared.broker import make_app
from afterword.shared.errors import LeaseLost, NotAccepted
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import Keys, lane_id, memory_key, shard_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    chat_request,
    claim_job,
    claim_lane,
    reply_to,
    submit_and_answer,
    submit_job,
    submit_request,
)
from tests.kit.servers.acl_file import acl_users
from tests.kit.servers.redis_groups import Cluster, Pair, cluster, pair, sentinels
from tests.kit.servers.valkey import free_port, release_port
from tests.kit.waiting import until

pytestmark = [pytest.mark.redis, pytest.mark.faults, pytest.mark.serial]

USERS = 6
SHARDS = 4


@dataclass
class Load:
    """Users who each send one job after another, again with the same key until it is accepted."""

    ledger: Ledger
    accepted: dict[str, str] = field(default_factory=dict)
    refused: list[NotAccepted] = field(default_factory=list)
    longest_s: float = 0.0
    stopped: bool = False

    async def run(self, event: Callable[[], object]) -> None:
        """Send jobs before, during and after an event, which runs in a thread of its own."""
        async with asyncio.TaskGroup() as group:
            for number in range(USERS):
                group.create_task(self._send_all(f"user-{number}"))
            await self._wait_for_more()
            await asyncio.to_thread(event)
            await self._wait_for_more()
            self.stopped = True

    async def _wait_for_more(self) -> None:
        """Wait until each user had ten more jobs accepted, and nine of them answered."""
        wanted = {user: count + 10 for user, count in self._counts().items()}
        await until(
            lambda: all(self._counts()[user] >= count for user, count in wanted.items()),
            "jobs of each user are accepted",
            20,
        )

    def _counts(self) -> dict[str, int]:
        counted = Counter(key.partition(":")[0] for key in self.accepted)
        return {f"user-{number}": counted[f"user-{number}"] for number in range(USERS)}

    async def account(self) -> None:
        """Check that every job that was accepted is there, once, and the ledger in itself right."""
        for key, job_id in self.accepted.items():
            assert await self._send_until_accepted(key) == job_id, "a key has one job"
        assert await stored(self.ledger) == set(self.accepted.values())
        assert [one async for one in self.ledger.maintenance.find_inconsistencies()] == []

    async def _send_all(self, user: str) -> None:
        for number in itertools.count():
            if self.stopped:
                return
            key, started = f"{user}:{number}", time.monotonic()
            job_id = self.accepted[key] = await self._send_until_accepted(key)
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            await self._answer(job_id)

    async def _send_until_accepted(self, key: str) -> str:
        request = chat_request(key, user_id=key.partition(":")[0], idempotency_key=key)
        jobs = self.ledger.jobs
        while True:
            try:
                return (await submit_request(jobs, jobs.new_id(request), request)).job_id
            except NotAccepted as error:
                self.refused.append(error)

    async def _answer(self, job_id: str) -> None:
        """Answer a job as a worker does: what has no answer from Redis is done again."""
        while True:
            with suppress(NotAccepted, LeaseLost):  # lost: a replica without the claim took over
                claimed = await self.ledger.jobs.claim(job_id, f"token of {job_id}")
                if claimed is not None:
                    await self.ledger.jobs.finish(claimed, reply_to(claimed))
                return


async def stored(ledger: Ledger) -> set[str]:
    """Return the ids of all jobs, as an erasure would find them."""
    shards, found = ledger.jobs._shards, set[str]()
    for keys in shards.all:
        async for names in shards.scan(f"{keys.job('')}*"):
            found.update(name.removeprefix(keys.job("")) for name in names)
    return found


async def load_during(settings: Settings, event: Callable[[], object]) -> Load:
    """Run a load while something happens, with the patience that a producer has."""
    async with Ledger(settings, patience_s=settings.submit_timeout_s) as ledger:
        await ledger.check(founds=True)
        load = Load(ledger)
        await load.run(event)
        await load.account()
    print(
        f"{len(load.accepted)} accepted, {len(load.refused)} refused or unknown and sent again, "
        f"longest submit {load.longest_s:.2f} s"
    )
    return load


def replicated(url: str, namespace: str, **others: object) -> Settings:
    return Settings.model_validate(
        {
            "redis_url": url,
            "namespace": namespace,
            "durability": "d3",
            "memory": "embedded",
            "shards": SHARDS,
            **others,
        }
    )


def slot_of_a_user(namespace: str) -> int:
    """Return the slot that holds the jobs of the first user."""
    shard = shard_of(memory_key("default", "user-0"), SHARDS)
    return key_slot(Keys(namespace, shard).root.encode())


@pytest.fixture
def two() -> Iterator[Pair]:
    with pair() as opened:
        yield opened


async def test_nothing_accepted_is_lost_when_one_of_two_hosts_takes_over(
    two: Pair, namespace: str
) -> None:
    await load_during(replicated(two.url, namespace), two.promote)


async def test_nothing_accepted_is_lost_when_two_hosts_change_places(
    two: Pair, namespace: str
) -> None:
    await load_during(replicated(two.url, namespace), two.switch)


async def test_nothing_accepted_is_lost_when_sentinels_fail_over(
    two: Pair, namespace: str, tmp_path: Path
) -> None:
    with sentinels(two, tmp_path) as watching:

        def fail_over() -> None:
            two.primary.kill()
            watching.wait_for_failover()
            two.return_old()

        await load_during(replicated(watching.url, namespace), fail_over)


@pytest.fixture(scope="module")
def six() -> Iterator[Cluster]:
    with cluster() as opened:
        yield opened


@pytest.fixture
def nobody() -> Iterator[str]:
    """Give the URL of a broker that is away: the sweep would send its hints again."""
    port = free_port()
    yield f"redis://127.0.0.1:{port}/0"
    release_port(port)


async def test_nothing_accepted_is_lost_when_a_node_of_a_cluster_dies(
    six: Cluster, namespace: str, nobody: str
) -> None:
    slot = slot_of_a_user(namespace)

    await load_during(
        replicated(six.url, namespace, broker_url=nobody), lambda: six.fail_over(slot)
    )


async def test_nothing_is_lost_or_doubled_when_a_slot_is_moved(
    six: Cluster, namespace: str, nobody: str
) -> None:
    slot = slot_of_a_user(namespace)

    await load_during(replicated(six.url, namespace, broker_url=nobody), lambda: six.move(slot))


async def test_nothing_is_lost_or_doubled_when_a_slot_is_moved_in_one_step(
    six: Cluster, namespace: str, nobody: str
) -> None:
    slot = slot_of_a_user(namespace)

    await load_during(
        replicated(six.url, namespace, broker_url=nobody), lambda: six.move_at_once(slot)
    )


async def test_what_is_on_two_nodes_is_read_from_both_and_written_on_neither(
    six: Cluster, namespace: str, nobody: str
) -> None:
    """A script needs its whole shard; so does a scan, or an erasure would leave keys behind."""
    settings = replicated(six.url, namespace, broker_url=nobody)
    async with (
        Ledger(settings, patience_s=20.0) as ledger,
        Ledger(settings, patience_s=1.0) as impatient,
    ):
        await ledger.check(founds=True)
        jobs = [await submit_and_answer(ledger, f"{n}", user_id="user-0") for n in range(50)]
        said = await read_all(ledger, jobs)
        moving = six.begin_move(slot_of_a_user(namespace))
        while (half := moving.move_keys(20)) and not moving.has_moved(jobs[0]):
            assert await read_all(ledger, jobs) == said
        assert half, "other keys are still where they were"
        assert await read_all(ledger, jobs) == said
        with pytest.raises(NotAccepted):
            await submit_job(impatient, user_id="user-0")
        with pytest.raises(NotAccepted):
            await stored(impatient)
        while moving.move_keys(20):
            pass
        moving.end()
        assert await read_all(ledger, jobs) == said
        assert await stored(ledger) == set(jobs)


async def read_all(ledger: Ledger, jobs: Sequence[str]) -> Sequence[object]:
    """Return all replies and events, read at the same time."""
    replies = [ledger.queries.reply(job_id) for job_id in jobs]
    events = [ledger.queries.events(job_id, None) for job_id in jobs]
    return [*await asyncio.gather(*replies), *await asyncio.gather(*events)]


async def test_a_repeated_submit_to_a_cluster_waits_for_the_replica_too(
    six: Cluster, namespace: str, nobody: str
) -> None:
    """The second one writes nothing: that alone must not pass for what a replica has."""
    node = six.holder(slot_of_a_user(namespace))
    settings = replicated(six.url, namespace, broker_url=nobody)
    request = chat_request(user_id="user-0", idempotency_key="k")
    async with (
        Ledger(settings, patience_s=settings.submit_timeout_s) as first,
        Ledger(settings, patience_s=settings.submit_timeout_s) as second,
    ):
        await first.check(founds=True)
        await second.check(founds=True)
        with six.replica_of(node).stopped():
            for ledger in (first, second):
                with pytest.raises(NotAccepted):
                    await submit_request(ledger.jobs, ledger.jobs.new_id(request), request)
        six.wait_for_replica_of(node)
        await submit_request(second.jobs, second.jobs.new_id(request), request)


async def test_each_role_of_the_acl_file_does_its_part_in_a_cluster(
    six: Cluster, nobody: str
) -> None:
    """With what docs/how-to/redis.md adds for one, also while a slot is on two nodes."""
    added = ("+asking", "+cluster|slots", "+config|get", "+wait", "+set")
    users = acl_users()
    for node in six.nodes:
        with node.client() as client:
            client.acl_log_reset()
            for user in users.values():
                user.create(client, *added)
    async with AsyncExitStack() as stack:
        roles = {}
        for role, user in users.items():
            settings = replicated(user.url(six.url), "afterword", broker_url=nobody)
            roles[role] = await stack.enter_async_context(Ledger(settings, patience_s=20.0))
            await roles[role].check(founds=role != "operator")
        job_id = await submit_job(roles["producer"], user_id="user-0")
        claimed = await claim_job(roles["responses"], job_id)
        await roles["responses"].jobs.finish(claimed, reply_to(claimed))
        owner = memory_key("default", "user-0")
        lane = lane_id(owner, shard_of(owner, SHARDS))
        turn = await claim_lane(roles["memories"], lane)
        await roles["memories"].turns.release_lane(turn)
        assert await roles["operator"].maintenance.overview()
        moving = six.begin_move(slot_of_a_user("afterword"))
        while moving.move_keys(100):
            pass
        assert await roles["producer"].queries.reply(job_id)
        assert (await roles["operator"].queries.details(job_id))["state"] == "succeeded"
        moving.end()
    for node in six.nodes:
        with node.client() as client:
            assert [(one["username"], one["object"]) for one in client.acl_log()] == []


def test_celery_follows_a_failover(two: Pair, tmp_path: Path) -> None:
    """Through hosts and through Sentinels, what is sent and taken is on the primary."""
    with sentinels(two, tmp_path) as watching:
        for url in (two.url, watching.url):
            _sent_and_taken(Settings(redis_url=url), two)
        two.primary.kill()
        watching.wait_for_failover()
        two.return_old()
        for url in (two.url, watching.url):
            _sent_and_taken(Settings(redis_url=url), two)


def _sent_and_taken(settings: Settings, on: Pair) -> None:
    with make_app(settings).connection_for_write() as connection, connection.channel() as channel:
        queue = Queue("trial", channel=channel, routing_key="trial", auto_delete=True)
        queue.declare()
        Producer(channel).publish("sent", routing_key="trial", serializer="json")
        with on.primary.client() as client:
            assert client.llen("afterword:trial") == 1
        message = queue.get(no_ack=True)
        assert message is not None
        assert message.payload == "sent"
