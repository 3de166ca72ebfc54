"""The watchdog: stops a worker without a pulse, and no other one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator

import pytest

from afterword.workers.background.periodic import STEADY, PeriodicTask, PeriodicTasks
from afterword.workers.background.watchdog import CHECKS, CHECKS_TO_RECONNECT, Watchdog
from afterword.workers.celery_runtime.heartbeat import ConsumerHeartbeat
from tests.kit.waiting import until

STALL_S = 0.01 * CHECKS


class Kennel:
    """A watchdog, the broker it asks, and what it did."""

    def __init__(self) -> None:
        self.heartbeat = ConsumerHeartbeat()
        self.answers = True
        self.asked = 0
        self.stops = 0
        self.dog = Watchdog(self.heartbeat, STALL_S, self._error, self._stop)
        check = PeriodicTask("watchdog", self.dog.check, self.dog.interval_s, STEADY)
        self.runner = PeriodicTasks([check])

    async def _error(self) -> str:
        self.asked += 1
        return "" if self.answers else "OperationalError"

    def _stop(self) -> None:
        self.stops += 1


@pytest.fixture
async def kennel() -> AsyncIterator[Kennel]:
    opened = Kennel()
    async with opened.runner.running():
        yield opened


async def looks(kennel: Kennel, count: int, *, beat: bool = False) -> None:
    """Let the watchdog look so often, each time with or without a sign before it."""
    for _ in range(count):
        if beat:
            kennel.heartbeat.beat()
        await asyncio.sleep(STALL_S / CHECKS)  # noqa: TID251 it is time that this is about


async def test_a_worker_without_a_heartbeat_is_stopped_once(
    kennel: Kennel, caplog: pytest.LogCaptureFixture
) -> None:
    kennel.heartbeat.expect()

    await until(lambda: kennel.stops, "it is stopped")

    await looks(kennel, 2 * CHECKS)
    assert kennel.stops == 1
    assert not kennel.dog.consuming
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]


async def test_a_worker_with_a_heartbeat_goes_on(kennel: Kennel) -> None:
    kennel.heartbeat.expect()

    await looks(kennel, 4 * CHECKS, beat=True)

    assert kennel.dog.consuming
    assert not kennel.stops


async def test_without_a_consumer_that_can_give_signs_none_are_missed(kennel: Kennel) -> None:
    await looks(kennel, 2 * CHECKS)

    assert kennel.dog.consuming
    assert not kennel.asked


async def test_a_stopping_worker_owes_no_heartbeat(kennel: Kennel) -> None:
    kennel.heartbeat.expect()
    kennel.heartbeat.end()

    await looks(kennel, 2 * CHECKS)

    assert not kennel.asked


async def test_asking_the_broker_again_is_no_heartbeat(kennel: Kennel) -> None:
    """It is how a consumer looks whose answers never come: kombu asks on a new connection."""
    while not kennel.stops:
        kennel.heartbeat.expect()
        await looks(kennel, 1)

    assert not kennel.dog.consuming


async def test_while_the_broker_is_away_it_is_not_seen_and_not_stopped(
    kennel: Kennel, caplog: pytest.LogCaptureFixture
) -> None:
    kennel.answers = False
    kennel.heartbeat.expect()

    await until(lambda: kennel.asked > CHECKS_TO_RECONNECT + CHECKS, "it was asked for long")

    assert not kennel.dog.consuming
    assert not kennel.stops
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "once an outage"
    kennel.heartbeat.beat()
    await until(lambda: kennel.dog.consuming, "it is well again")


async def test_celery_has_time_to_come_back_to_a_broker(kennel: Kennel) -> None:
    kennel.answers = False
    kennel.heartbeat.expect()
    await until(lambda: kennel.asked, "the broker is away")
    kennel.answers = True
    before = kennel.asked

    await until(lambda: kennel.stops, "it is stopped all the same")

    assert kennel.asked - before >= CHECKS_TO_RECONNECT - 1


async def test_an_outage_that_ends_before_the_stall_is_no_stall() -> None:
    """As a Redis that is restarted: Celery has not reconnected when it answers again."""
    kennel = Kennel()
    kennel.heartbeat.expect()
    await kennel.dog.check()
    kennel.answers = False
    while kennel.dog.consuming:
        kennel.answers = kennel.asked == CHECKS - 1
        await kennel.dog.check()
    assert kennel.answers
    assert not kennel.stops

    kennel.heartbeat.beat()
    await kennel.dog.check()

    assert kennel.dog.consuming


async def test_one_long_pause_of_the_process_is_one_look(kennel: Kennel) -> None:
    kennel.heartbeat.expect()
    await looks(kennel, 2)

    asyncio.get_running_loop().call_soon(_pause, STALL_S * 3)
    await looks(kennel, 2)

    assert kennel.dog.consuming


def _pause(seconds: float) -> None:
    time.sleep(seconds)  # noqa: TID251 as a process that was stopped
