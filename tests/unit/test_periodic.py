"""Periodic tasks: they go on whatever one run comes to, and their health is known."""

from __future__ import annotations

import asyncio
import logging

import pytest

from afterword.shared.errors import LedgerUnavailable, Misconfigured
from afterword.shared.events import (
    InternalError,
    PeriodicTaskFailed,
    PeriodicTaskLate,
    PeriodicTaskRecovered,
)
from afterword.shared.ledger.records import TaskHealth
from afterword.workers.background.periodic import PeriodicTask, PeriodicTasks
from tests.kit.waiting import until
from tests.kit.workers.observed import observed

OFTEN_S = 0.001
NEVER_S = 3600.0


class Chore:
    """Ends each run as the test says, and well after that."""

    def __init__(self, *results: object) -> None:
        self._results = list(results)
        self.runs = 0
        self.released = asyncio.Event()
        self.released.set()

    async def run(self) -> object:
        self.runs += 1
        await self.released.wait()
        result = self._results.pop(0) if self._results else None
        if isinstance(result, Exception):
            raise result
        return result


def often(chore: Chore, **options: float) -> PeriodicTask:
    return PeriodicTask("chore", chore.run, OFTEN_S, **options)  # type: ignore[arg-type]


async def test_a_task_runs_again_and_again_until_the_end() -> None:
    chore = Chore()
    async with PeriodicTasks([often(chore)]).running():
        await until(lambda: chore.runs > 3, "it runs")

    assert len(asyncio.all_tasks()) == 1, "the test alone"


async def test_it_runs_again_at_once_while_more_is_due() -> None:
    chore = Chore(True, True, False)
    async with PeriodicTasks([PeriodicTask("chore", chore.run, NEVER_S)]).running():
        await until(lambda: chore.runs == 3, "all that is due is done")


async def test_one_that_waits_first_does_not_run_at_the_start() -> None:
    first, second = Chore(), Chore()
    tasks = [
        PeriodicTask("first", first.run, NEVER_S, waits_first=True),
        PeriodicTask("second", second.run, OFTEN_S),
    ]
    async with PeriodicTasks(tasks).running():
        await until(lambda: second.runs > 3, "the other one runs")

    assert first.runs == 0


def test_the_pause_is_the_interval_within_its_jitter() -> None:
    task = PeriodicTask("chore", Chore().run, 10.0, jitter=(0.5, 1.5))
    pauses = [task.pause_s() for _ in range(200)]

    assert 5 <= min(pauses) < 8
    assert 12 < max(pauses) <= 15


@pytest.mark.parametrize(
    "error",
    [LedgerUnavailable("away"), Misconfigured("AFTERWORD_REDIS_URL", "refused"), KeyError("bug")],
)
async def test_a_failed_run_ends_neither_the_task_nor_the_others(error: Exception) -> None:
    failing, other = Chore(error, error), Chore()
    tasks = PeriodicTasks([often(failing), PeriodicTask("other", other.run, OFTEN_S)])
    with observed(PeriodicTaskFailed, PeriodicTaskRecovered) as seen:
        async with tasks.running():
            await until(lambda: failing.runs > 2 and other.runs > 2, "both go on")

    name = type(error).__name__
    assert [event for event, _ in seen.all] == [
        PeriodicTaskFailed(task="chore", error=name, failures=1),
        PeriodicTaskFailed(task="chore", error=name, failures=2),
        PeriodicTaskRecovered(task="chore", failures=2),
    ]


async def test_a_bug_names_its_place_and_an_outage_does_not() -> None:
    chore = Chore(LedgerUnavailable("away"), KeyError("my secret"))
    with observed(InternalError) as seen:
        async with PeriodicTasks([often(chore)]).running():
            await until(lambda: chore.runs > 2, "it goes on")

    (bug,) = seen.of(InternalError)
    assert bug.error == "KeyError"
    assert bug.place.startswith("afterword/workers/background/periodic.py:")


async def test_a_task_that_fails_all_the_time_is_not_logged_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    chore = Chore(*[LedgerUnavailable("away")] * 20)
    async with PeriodicTasks([often(chore)]).running():
        await until(lambda: chore.runs > 20, "it goes on")

    warnings = [one.message for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 5, "the 1st, 2nd, 4th, 8th and 16th time"


async def test_the_health_of_a_task_shows_its_failures_until_it_succeeds() -> None:
    now = 0.0
    chore = Chore(None, LedgerUnavailable("away"), LedgerUnavailable("away"))
    tasks = PeriodicTasks([PeriodicTask("chore", chore.run, NEVER_S)], clock=lambda: now)
    (task,) = tasks._tasks

    assert tasks.health() == (TaskHealth("chore", "ok", 0, None, None),)
    await tasks._run_once(task)
    now = 10.0
    await tasks._run_once(task)
    now = 11.0
    await tasks._run_once(task)
    now = 13.0
    assert tasks.health() == (TaskHealth("chore", "failing", 2, 2.0, 13.0),)

    await tasks._run_once(task)
    assert tasks.health() == (TaskHealth("chore", "ok", 0, 0.0, 0.0),)


async def test_a_run_that_takes_too_long_is_late_until_it_ends() -> None:
    chore = Chore()
    chore.released.clear()
    tasks = PeriodicTasks([often(chore, limit_s=0.01)])
    with observed(PeriodicTaskLate, PeriodicTaskRecovered) as seen:
        async with tasks.running():
            await until(lambda: seen.of(PeriodicTaskLate), "it is late")
            assert [one.state for one in tasks.health()] == ["late"]
            chore.released.set()
            await until(lambda: seen.of(PeriodicTaskRecovered), "it is well again")
            assert [one.state for one in tasks.health()] == ["ok"]

    assert seen.of(PeriodicTaskLate) == [PeriodicTaskLate(task="chore", running_s=0.01)]
