"""A worker that no longer takes hints is not alive, and ends; one that is busy, or idle, is."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import pytest

from afterword.producer import Producer, TurnState
from afterword.shared.names import REPLIES
from afterword.workers.background.watchdog import CHECKS
from afterword.workers.celery_runtime.pool import STOP_OVERHEAD_S
from tests.kit.servers.faulty_proxy import FaultyProxy
from tests.kit.waiting import until, wait_until
from tests.kit.workers.fleet import CANARY, MEMORY_FAULT_APP, Fleet, WorkerProcess
from tests.kit.workers.memory_faults import calls_hang

pytestmark = [
    pytest.mark.system,
    pytest.mark.redis,
    pytest.mark.faults,
    pytest.mark.slow,
    pytest.mark.spread,
]

STALL_S = 3.0
DRAIN_S = 1.0
SLACK_S = 12.0

DEAF = "tests.kit.workers.broken_consumer_app:app"


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_STALL_S=str(STALL_S), AFTERWORD_DRAIN_S=str(DRAIN_S)) as opened:
        yield opened


def _end(worker: WorkerProcess) -> tuple[int, float]:
    """Wait for the end of a worker; return its exit code and how long that took."""
    started = time.monotonic()
    code = worker.process.wait(STALL_S + SLACK_S)
    return code, time.monotonic() - started


def test_a_worker_that_asks_for_no_hints_any_more_ends_and_is_not_alive(fleet: Fleet) -> None:
    [deaf] = fleet.start("responses", app=DEAF)
    fleet.afterword("healthcheck", "responses")
    (fleet.data_dir / "deaf").touch()

    code, took_s = _end(deaf)

    assert code != 0
    assert took_s > STALL_S * (CHECKS - 1) / CHECKS - 1  # up to a second for the last answer
    assert "no hint taken" in deaf.log
    wait_until(lambda: _dead(fleet), "nobody is alive", 30, 0.3)


def test_a_worker_whose_consumer_hangs_is_ended_by_force(fleet: Fleet) -> None:
    """As in a call on a connection that is half open: it does not even hear that it should stop."""
    [stuck] = fleet.start("responses", app=DEAF)
    (fleet.data_dir / "stuck").touch()

    assert stuck.process.wait(STALL_S + DRAIN_S + STOP_OVERHEAD_S + SLACK_S) != 0

    assert "forcing it to" in stuck.log


async def test_a_worker_whose_answers_never_come_ends(fleet: Fleet) -> None:
    async with FaultyProxy(fleet.valkey.port) as line:
        worker = fleet.launch("responses", AFTERWORD_BROKER_URL=line.url)
        await asyncio.to_thread(worker.ready)
        line.swallow_answers_to(b"BLMPOP")

        code, _ = await asyncio.to_thread(_end, worker)

    assert code != 0
    assert "no hint taken" in worker.log


async def test_a_worker_whose_broker_is_away_is_not_alive_and_comes_back(fleet: Fleet) -> None:
    async with FaultyProxy(fleet.valkey.port) as line:
        worker = fleet.launch("responses", AFTERWORD_BROKER_URL=line.url)
        await asyncio.to_thread(worker.ready)
        await asyncio.to_thread(fleet.ask, "ping")  # it has asked the broker for hints by now
        line.close()
        await until(lambda: "the broker does not answer" in worker.log, "it is noticed", 20)
        await asyncio.to_thread(wait_until, lambda: _dead(fleet), "it is not alive", 40, 0.3)
        assert worker.runs
        await line.open()
        await asyncio.to_thread(wait_until, lambda: _alive(fleet), "it is alive again", 60, 0.3)

    assert worker.runs


def test_an_idle_worker_stays_alive(fleet: Fleet) -> None:
    [idle] = fleet.start("responses")
    started = time.monotonic()

    wait_until(lambda: time.monotonic() - started > 4 * STALL_S, "some periods", 5 * STALL_S)

    fleet.afterword("healthcheck", "responses")
    assert idle.runs
    assert idle.stop() == 0


@pytest.mark.finding(34)
def test_a_worker_that_was_told_to_take_no_more_is_left_in_peace(fleet: Fleet) -> None:
    [drained] = fleet.start("responses")
    fleet.ask("cancel_consumer", queue=REPLIES)
    started = time.monotonic()

    wait_until(lambda: time.monotonic() - started > 2 * STALL_S, "some periods", 3 * STALL_S)

    assert drained.runs
    wait_until(lambda: _dead(fleet), "nobody takes jobs, and that is told", 40)
    fleet.ask("add_consumer", queue=REPLIES)
    wait_until(lambda: _alive(fleet), "it is back", 40)
    assert "no hint taken" not in drained.log


def test_a_busy_worker_stays_alive(fleet: Fleet) -> None:
    fleet.start("responses")
    busy = fleet.launch("memories", "-c", "1", app=MEMORY_FAULT_APP).ready()
    with Producer(fleet.settings) as producer, calls_hang(fleet.data_dir, "add") as hangs:
        job = producer.submit(user_id="ann", message=f"I live in Lisbon, {CANARY}.")
        wait_until(hangs, "its slot is taken", 20)
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 3 * STALL_S, "some periods", 4 * STALL_S)
        fleet.afterword("healthcheck", "memories")
        assert busy.runs
        assert job.status().turn is TurnState.WRITING


def test_a_worker_that_lets_its_jobs_end_is_left_in_peace(fleet: Fleet) -> None:
    fleet.start("responses")
    [writer] = fleet.start("memories", app=MEMORY_FAULT_APP, AFTERWORD_DRAIN_S="20")
    with Producer(fleet.settings) as producer, calls_hang(fleet.data_dir, "add") as hangs:
        producer.submit(user_id="ann", message=f"I live in Lisbon, {CANARY}.")
        wait_until(hangs, "it is being written", 20)
        writer.send(signal.SIGTERM)
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 2 * STALL_S, "it drains", 3 * STALL_S)
        assert writer.runs
    assert writer.process.wait(SLACK_S) == 0
    assert "no hint taken" not in writer.log


def _alive(fleet: Fleet) -> bool:
    """Return whether a health check finds a worker for replies well."""
    return fleet.exit_code("healthcheck", "responses") == 0


def _dead(fleet: Fleet) -> bool:
    return not _alive(fleet)
