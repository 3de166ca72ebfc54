"""Orders to a fleet of real workers: a pause over a restart, and a drain that outlasts a reply."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from afterword.producer import JobState, Producer, TurnState
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.servers.fork_server import COMMAND
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

PATIENCE_S = 60.0


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    # SIGTERM would have a reply given back at once. No lease is lost on a busy machine.
    times = {"AFTERWORD_DRAIN_S": "0.1", "AFTERWORD_LEASE_S": "60"}
    with Fleet(AFTERWORD_MEMORY="embedded", **times) as fleet:
        yield fleet


def status(fleet: Fleet) -> dict[str, Any]:
    """Return what `afterword status` says."""
    found: dict[str, Any] = json.loads(fleet.afterword("status", "--json").stdout)
    return found


def waiting(fleet: Fleet) -> list[int]:
    """Return how many wait for each order."""
    return [one["waiting"] for one in json.loads(fleet.afterword("orders", "--json").stdout)]


def test_paused_memories_stop_no_reply_and_outlast_their_workers(fleet: Fleet) -> None:
    fleet.start("responses", "memories")
    with Producer(fleet.settings) as producer:
        fleet.afterword("pause", "memories", "--reason", "moves", "--apply")
        job = producer.submit(user_id="ann", message=f"I live in Lisbon, {CANARY}.")
        assert job.wait(timeout=PATIENCE_S).attempts == 1
        wait_until(lambda: waiting(fleet) == [1], "the lane waits for the order", PATIENCE_S)

        fleet.stop()
        fleet.start("responses", "memories")
        assert job.status().turn is TurnState.PENDING
        fleet.afterword("resume", "memories", "--apply")

        wait_until(lambda: job.status().turn.settled, "the turn is stored", PATIENCE_S)
        assert job.status().turn is TurnState.STORED


def test_a_drained_worker_finishes_the_reply_that_it_holds_and_ends(fleet: Fleet) -> None:
    (worker,) = fleet.start("responses")
    with Producer(fleet.settings) as producer:
        fleet.claude.will_answer(ClaudeAnswer(hold=True))
        job = producer.submit(user_id="ann", message=f"hello, {CANARY}")
        wait_until(lambda: fleet.claude.held() == 1, "the reply is under way", PATIENCE_S)
        wait_until(lambda: status(fleet)["workers"] != [], "its heartbeat came", PATIENCE_S)
        (name,) = [one["name"] for one in status(fleet)["workers"]]

        drain = fleet.popen(*COMMAND, "drain", name, "--apply", "--wait", "10m")
        wait_until(
            lambda: [one["draining"] for one in status(fleet)["workers"]] == [True],
            "the worker says that it drains",
            PATIENCE_S,
        )
        late = producer.submit(user_id="bob", message=f"hello, {CANARY}")
        fleet.claude.release()

        assert job.wait(timeout=PATIENCE_S).attempts == 1
        assert worker.process.wait(PATIENCE_S) == 0, worker.log
        said, _ = drain.communicate(timeout=PATIENCE_S)
        assert (drain.returncode, "1 worker ended" in said) == (0, True)
        assert late.status().state is JobState.QUEUED
        assert status(fleet)["workers"] == []
        fleet.afterword("drain", name, "--apply", code=2)

        fleet.start("responses")
        assert late.wait(timeout=PATIENCE_S).attempts == 1
