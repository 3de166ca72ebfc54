"""Real workers over several Redis servers: they follow a failover, and every job has its reply."""

from __future__ import annotations

from functools import partial

import pytest
from redis.crc import key_slot

from afterword.producer import Job, NotAccepted, Producer
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import Keys, memory_key, shard_of
from tests.kit.servers.redis_groups import cluster, pair
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow, pytest.mark.serial]

PATIENCE_S = 120.0
SHARDS = 4
USERS = tuple(f"user-{number}" for number in range(6))


def accepted(producer: Producer, user: str, key: str) -> Job:
    """Submit a job, again with the same key until it is accepted."""

    def submitted() -> Job | None:
        try:
            return producer.submit(
                user_id=user, message=f"I moved to Lyon. {CANARY}", idempotency_key=key
            )
        except NotAccepted:
            return None

    job = wait_until(submitted, "the job is accepted", 60)
    assert job is not None
    return job


def answered_and_remembered(producer: Producer, key: str) -> None:
    jobs = [accepted(producer, user, f"{key} {user}") for user in USERS]
    for job in jobs:
        assert job.wait(PATIENCE_S).text
    for job in jobs:
        wait_until(partial(is_stored, job), "the turn is stored", 60)


def is_stored(job: Job) -> bool:
    return job.status().turn is TurnState.STORED


def test_workers_follow_the_primary_of_two_hosts() -> None:
    """Celery's queues are in it as well."""
    with pair() as two, Fleet(AFTERWORD_REDIS_URL=two.url) as fleet:
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            answered_and_remembered(producer, "before")
            two.promote()
            answered_and_remembered(producer, "after a failover")
            two.switch()
            answered_and_remembered(producer, "after both changed places")


def test_workers_follow_the_nodes_of_a_cluster() -> None:
    with (
        cluster() as six,
        Valkey() as broker,
        Fleet(
            AFTERWORD_REDIS_URL=six.url,
            AFTERWORD_BROKER_URL=broker.url,
            AFTERWORD_SHARDS=str(SHARDS),
        ) as fleet,
    ):
        shard = shard_of(memory_key("default", USERS[0]), SHARDS)
        slot = key_slot(Keys(fleet.settings.namespace, shard).root.encode())
        fleet.start("responses", "memories")
        with Producer(fleet.settings) as producer:
            answered_and_remembered(producer, "before")
            six.fail_over(slot)
            answered_and_remembered(producer, "after a failover")
            six.move(slot)
            answered_and_remembered(producer, "after a slot was moved")
        for command in ("status", "account"):
            fleet.afterword(command, "--json")
