"""A Celery app of somebody else on the same Redis database: neither meets the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery
from redis import Redis

from afterword.producer import Producer
from tests.kit.workers.fleet import Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_NAMESPACE="chat", AFTERWORD_MEMORY="off") as fleet:
        fleet.start("responses")
        yield fleet


@pytest.fixture
def theirs(fleet: Fleet) -> Iterator[Celery]:
    with Celery("theirs", broker=fleet.valkey.url, set_as_current=False) as app:
        yield app


def test_with_a_namespace_our_workers_and_a_foreign_app_share_a_database(
    fleet: Fleet, theirs: Celery
) -> None:
    theirs.send_task("theirs.work", queue="replies")
    assert theirs.control.ping(timeout=0.5) == []
    with Producer(fleet.settings) as producer:
        assert producer.submit(user_id="ann", message="Hello").wait(timeout=30).text
        held = [producer.submit(user_id="ann", message="Hello") for _ in range(3)]
        theirs.control.purge()
        assert all(job.wait(timeout=30).text for job in held)
    with Redis.from_url(fleet.valkey.url) as redis:
        assert redis.llen("replies") == 1
