"""A Celery app of somebody else on the same Redis and database: neither meets the other.

Theirs has everything as Celery has it by itself, and queues that are called like ours.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from celery import Celery

from afterword.producer import Producer
from afterword.shared.broker import make_app
from afterword.shared.names import REPLIES
from afterword.shared.settings import Settings
from tests.kit.ledger.hint_messages import hint_list
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet
from tests.kit.workers.plain_app import ADD, QUEUES, make_plain_app
from tests.kit.workers.plain_worker import NODE, PlainWorker

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

NAMESPACES = ["afterword", "chat"]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Give workers of the default namespace, and one of another."""
    with Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        fleet.start("responses", "memories")
        fleet.start("responses", AFTERWORD_NAMESPACE="chat")
        yield fleet


@pytest.fixture
def theirs(fleet: Fleet) -> Iterator[PlainWorker]:
    with PlainWorker(fleet.valkey.url) as worker:
        yield worker


@pytest.fixture(params=NAMESPACES)
def settings(fleet: Fleet, request: pytest.FixtureRequest) -> Settings:
    return Settings.load(fleet.variables | {"AFTERWORD_NAMESPACE": request.param})


@pytest.fixture
def ours(settings: Settings) -> Iterator[Celery]:
    with make_app(settings) as app:
        yield app


def answered(settings: Settings) -> bool:
    """Return whether a job of ours is answered."""
    with Producer(settings) as producer:
        return bool(producer.submit(user_id="ann", message="Hello").wait(timeout=60).text)


def names(app: Celery, expected: int) -> set[str]:
    """Return the names of all workers that answer a ping: those expected, and whoever else."""
    answers = app.control.ping(timeout=60, limit=expected), app.control.ping(timeout=0.5)
    return {name for found in answers for one in found or () for name in one}


def nodes_of(settings: Settings) -> set[str]:
    """Return what the workers of a namespace are called."""
    if settings.namespace == "chat":
        return {"responses2@localhost"}
    return {"responses0@localhost", "memories1@localhost"}


def dropped(fleet: Fleet) -> int:
    """Return how many messages our workers reported that were not theirs to follow."""
    return sum(worker.log.count("message dropped") for worker in fleet.workers)


@contextmanager
def stopped(fleet: Fleet) -> Iterator[None]:
    """Let no worker of ours do anything while the context is open."""
    for worker in fleet.workers:
        worker.send(signal.SIGSTOP)
    try:
        yield
    finally:
        start_again(fleet)


def start_again(fleet: Fleet) -> None:
    """Let the workers go on that were stopped."""
    for worker in fleet.workers:
        worker.send(signal.SIGCONT)


def fill(theirs: Celery) -> None:
    """Put a task into each queue of theirs."""
    for queue in QUEUES:
        theirs.send_task(ADD, (1, 2), queue=queue)


def queues(app: Celery, workers: int) -> list[list[str]]:
    """Return what each worker of ours consumes."""
    answers = app.control.broadcast("active_queues", reply=True, timeout=60, limit=workers)
    return [[queue["name"] for queue in found] for one in answers or () for found in one.values()]


def test_each_app_reaches_its_own_workers_and_no_others(
    theirs: PlainWorker, ours: Celery, settings: Settings
) -> None:
    expected = nodes_of(settings)

    assert names(theirs.app, 1) == {NODE}
    assert names(ours, len(expected)) == expected


def test_queues_of_the_same_name_are_not_the_same(theirs: PlainWorker, settings: Settings) -> None:
    assert [theirs.add(queue) for queue in QUEUES] == [3, 3, 3]
    assert answered(settings)


def test_their_shutdown_ends_their_workers_and_ours_do_not_hear_it(
    fleet: Fleet, theirs: PlainWorker, settings: Settings
) -> None:
    before = dropped(fleet)

    theirs.app.control.shutdown()

    assert theirs.process.wait(60) == 0
    assert answered(settings)
    assert all(worker.runs for worker in fleet.workers)
    assert dropped(fleet) == before


def test_their_workers_hear_no_command_of_ours(
    fleet: Fleet, theirs: PlainWorker, ours: Celery, settings: Settings
) -> None:
    before = dropped(fleet)
    ours.control.shutdown()
    ours.control.revoke("theirs", terminate=True)
    ours.control.rate_limit(ADD, "1/h")
    mine = 3 * len(nodes_of(settings))
    wait_until(lambda: dropped(fleet) == before + mine, "ours have heard and refused all three")

    # A worker of theirs would have heard all of them before it hears this.
    assert theirs.app.control.inspect(timeout=60, limit=1).revoked() == {NODE: []}
    assert [theirs.add("celery") for _ in range(2)] == [3, 3]


def test_no_revocation_of_theirs_is_heard_by_ours(
    fleet: Fleet, theirs: PlainWorker, settings: Settings
) -> None:
    before = dropped(fleet)
    with Producer(settings) as producer:
        job = producer.submit(user_id="ann", message="Hello")
        theirs.app.control.revoke(job.id, terminate=True)
        theirs.app.control.cancel_consumer(REPLIES)
        theirs.app.control.pool_shrink(1)
        assert job.wait(timeout=60).text
    assert answered(settings)
    assert dropped(fleet) == before


def test_a_purge_takes_only_what_is_ones_own(
    fleet: Fleet, ours: Celery, settings: Settings
) -> None:
    with stopped(fleet), fleet.valkey.client() as redis, Producer(settings) as producer:
        wait_until(lambda: not redis.info("clients")["blocked_clients"], "nobody takes anything")
        with make_plain_app(fleet.valkey.url) as theirs:
            fill(theirs)
            jobs = [producer.submit(user_id="ann", message="Hello") for _ in range(2)]
            hints = hint_list(REPLIES, "normal", settings.namespace)

            assert theirs.control.purge() == len(QUEUES)
            assert redis.llen(hints) == len(jobs)

            fill(theirs)
            assert ours.control.purge() == len(jobs)
            assert [redis.llen(queue) for queue in QUEUES] == [1, 1, 1]
            theirs.control.purge()
        start_again(fleet)
        assert all(job.wait(timeout=60).text for job in jobs)  # the sweep hinted them again


def test_who_listens_to_their_events_hears_nothing_of_ours(
    theirs: PlainWorker, ours: Celery, settings: Settings
) -> None:
    heard: list[dict[str, str]] = []
    with theirs.app.connection_for_read() as connection:
        receiver = theirs.app.events.Receiver(connection, handlers={"*": heard.append})
        with closing(receiver.itercapture(limit=None, timeout=60, wakeup=False)) as listening:
            next(listening)  # it is subscribed
            # A task that runs before its worker has heard this would send no event.
            assert theirs.app.control.enable_events(reply=True, timeout=60, limit=1)
            ours.control.enable_events()
            assert answered(settings)
            theirs.add("celery")
            # Who sends a task may say so only after it was done.
            while not {"task-sent", "task-succeeded"} <= {event["type"] for event in heard}:
                next(listening)
    assert {one["hostname"] for one in heard if one["type"] != "task-sent"} == {NODE}
    assert {one["name"] for one in heard if one["type"] == "task-sent"} == {ADD}


def test_our_namespaces_do_not_meet_either(fleet: Fleet) -> None:
    """Commands that our workers follow reach those of one namespace only."""
    apps = {
        name: make_app(Settings.load(fleet.variables | {"AFTERWORD_NAMESPACE": name}))
        for name in NAMESPACES
    }
    apps["chat"].control.cancel_consumer(REPLIES)
    wait_until(lambda: queues(apps["chat"], 1) == [[]], "the worker of chat has heard it")
    try:
        assert sorted(queues(apps["afterword"], 2)) == [["memories"], ["replies"]]
        assert answered(fleet.settings)
    finally:
        apps["chat"].control.add_consumer(REPLIES)
        wait_until(lambda: queues(apps["chat"], 1) == [["replies"]], "it consumes again")
        for app in apps.values():
            app.close()


def test_on_a_broker_of_theirs_it_is_the_same() -> None:
    """Wake-up messages and remote control go over the broker of the other app."""
    with (
        Valkey() as broker,
        PlainWorker(broker.url) as theirs,
        Fleet(AFTERWORD_MEMORY="off", AFTERWORD_BROKER_URL=broker.url) as fleet,
    ):
        fleet.start("responses")
        assert names(fleet.app, 1) == {"responses0@localhost"}
        assert names(theirs.app, 1) == {NODE}
        assert answered(fleet.settings)
        fleet.app.control.shutdown()
        wait_until(lambda: dropped(fleet) == 1, "ours has heard and refused it")
        assert theirs.add(REPLIES) == 3

        theirs.app.control.shutdown()

        assert theirs.process.wait(60) == 0
        assert theirs.app.control.purge() == 0
        assert answered(fleet.settings)
        assert dropped(fleet) == 1
