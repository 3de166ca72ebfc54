"""A whole fleet works as the user of Redis that the documents give it, and is denied nothing."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

from afterword.producer import Producer
from tests.conftest import ROOT
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet
from tests.kit.workers.plain_worker import PlainWorker

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

URL = "AFTERWORD_REDIS_URL"
PAGE = (ROOT / "docs/how-to/beside-celery.md").read_text()

#: Every command that reads, and one that erases.
COMMANDS = [
    ("status",), ("status", "--json"), ("account",), ("reconcile",), ("dead", "list"),
    ("gate", "list"), ("quarantine", "list"), ("audit",), ("usage",),
    ("healthcheck", "responses"), ("forget", "ann", "--apply"),
]  # fmt: skip


def documented() -> list[str]:
    """Return the command that makes the user."""
    line = re.search(r"^redis-cli (ACL SETUSER .*)$", PAGE, re.MULTILINE)
    assert line, "the page shows how to make the user"
    return shlex.split(line[1])


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        with fleet.valkey.client() as redis:
            redis.execute_command(*documented())
        url = fleet.valkey.url.replace("//", "//afterword:PASSWORD@")
        fleet.variables[URL] = url
        yield fleet


def denials(redis: Redis) -> list[tuple[str, str]]:
    """Return what the user was denied: whether command, key or channel, and which."""
    return [(str(one["reason"]), str(one["object"])) for one in redis.acl_log()]


def test_a_fleet_lives_its_life_as_that_user(fleet: Fleet) -> None:
    fleet.start("responses", "memories")
    with Producer(fleet.settings) as producer, fleet.valkey.client() as redis:
        with PlainWorker(fleet.valkey.url) as theirs:
            job = producer.submit(user_id="ann", message="I prefer Celsius.", idempotency_key="1")
            assert [event.type for event in job.stream()][-1] == "final"
            assert len(fleet.ask("ping")) == len(fleet.workers)
            assert theirs.add("celery") == 3
        for command in COMMANDS:
            fleet.afterword(*command)
        fleet.afterword("doctor")

        assert denials(redis) == []
        mine = [name for name in redis.scan_iter() if name.startswith("afterword:")]
        assert len(mine) > 5


def test_without_the_control_channel_only_remote_control_is_missing(fleet: Fleet) -> None:
    with fleet.valkey.client() as redis:
        redis.execute_command("ACL", "SETUSER", "afterword", "resetchannels", "&afterword:{*")
    (worker,) = fleet.start("responses")

    wait_until(lambda: "remote control may not answer" in worker.log, "it says so")
    with Producer(fleet.settings) as producer:
        assert producer.submit(user_id="ann", message="Hello").wait(timeout=60).text

    assert worker.log.count("remote control may not answer") == 1
    assert "Connection to broker lost" not in worker.log


def test_what_more_takes_is_what_the_page_adds(fleet: Fleet) -> None:
    table = PAGE.partition("| for | add |")[2].partition("\n\n")[0].replace("\\|", "|")
    more = re.findall(r"\+[a-z|]+", table)
    wanted: list[tuple[str, ...]] = [
        ("CONFIG", "GET", "appendfsync"), ("BGREWRITEAOF",), ("SLOWLOG", "RESET"),
        ("COMMANDLOG", "RESET", "slow"),
    ]  # fmt: skip
    with fleet.valkey.client() as redis, Redis.from_url(fleet.variables[URL]) as user:
        for command in wanted:
            with pytest.raises(NoPermissionError):
                user.execute_command(*command)
        redis.execute_command("ACL", "SETUSER", "afterword", *more)
        for command in wanted:
            user.execute_command(*command)
        assert len(more) == len(wanted)


def test_the_user_reaches_nothing_else(fleet: Fleet) -> None:
    with Redis.from_url(fleet.variables[URL]) as user:
        for command in (("GET", "celery"), ("PUBLISH", "/0.celery.pidbox", "x"), ("FLUSHALL",)):
            with pytest.raises(NoPermissionError):
                user.execute_command(*command)
