"""A thread that hangs in mem0 does not keep its worker from exiting, and loses no turn."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from afterword.producer import Job, Producer, TurnState
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, MEMORY_FAULT_APP, Fleet
from tests.kit.workers.memory_faults import calls_hang

pytestmark = [
    pytest.mark.system,
    pytest.mark.redis,
    pytest.mark.faults,
    pytest.mark.slow,
]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_DRAIN_S="1") as opened:
        yield opened


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_with_a_hung_thread_exits_and_another_stores_the_turn(
    fleet: Fleet, how: signal.Signals
) -> None:
    _, hung = fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
    with Producer(fleet.settings) as producer:
        with calls_hang(fleet.data_dir, "add") as hangs:
            job = producer.submit(user_id="ann", message=f"I live in Lisbon, {CANARY}.")
            wait_until(hangs, "it is being written", 20)
            code = hung.stop(how)  # and the call hangs all the time

        assert code != 0, "its end was no good one"
        assert "forcing it to" in hung.log
        fleet.start("memories", app=MEMORY_FAULT_APP)
        wait_until(lambda: job.status().turn is TurnState.STORED, "another one stores it", 30)
    assert _rows(fleet, job) == 1


def _rows(fleet: Fleet, job: Job) -> int:
    """Return how many memories came from a turn."""
    with closing(sqlite3.connect(fleet.data_dir / "memory" / "memories.sqlite")) as sql:
        count = "SELECT count(*) FROM memories WHERE turn_id = ?"
        return int(sql.execute(count, (job.id,)).fetchone()[0])
