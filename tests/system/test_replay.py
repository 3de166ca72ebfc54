"""Replay with real workers: in order, once, whatever becomes of whoever pressed it."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest

from producer import Job, Operator, Outcome, Producer, RunState, TurnState
from tests.standins.claude_wire import told
from tests.standins.flaws import held, rejected
from tests.standins.fleet import CANARY, PLIABLE, Fleet
from tests.standins.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]

_COMMAND = ("-P", "-c", "from producer.cli.main import main; main()")
LETTERS = 12


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_SKIP_PLEASANTRIES="false") as fleet:
        fleet.start("responses", "memories", app=PLIABLE)
        yield fleet


@pytest.fixture
def producer(fleet: Fleet) -> Iterator[Producer]:
    with Producer(fleet.settings) as producer:
        yield producer


@pytest.fixture
def operator(fleet: Fleet) -> Iterator[Operator]:
    with Operator(fleet.settings) as operator:
        yield operator


def settled(job: Job, state: TurnState) -> None:
    wait_until(lambda: job.status().turn is state, f"the turn is {state}", 30)


def rows(fleet: Fleet, jobs: Sequence[Job]) -> list[int]:
    """Return how many memories came from each turn."""
    path = fleet.data_dir / "memory" / "memories.sqlite"
    with closing(sqlite3.connect(path)) as sql:
        count = "SELECT count(*) FROM memories WHERE turn_id = ?"
        return [int(sql.execute(count, (job.id,)).fetchone()[0]) for job in jobs]


def bury(fleet: Fleet, producer: Producer, name: str) -> list[Job]:
    """Bury turns of several users."""
    with rejected(fleet.data_dir, "add"):
        jobs = [
            producer.submit(user_id=f"{name}{at % 4}", message=f"I own {at} {CANARY} boats.")
            for at in range(LETTERS)
        ]
        for job in jobs:
            settled(job, TurnState.DEAD)
    return jobs


@contextmanager
def pressed(fleet: Fleet, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Press replay in a process of its own; end it in any case."""
    import sys

    running = fleet.popen(sys.executable, *_COMMAND, "dead", "replay", *arguments, "--go")
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def newest(operator: Operator) -> str:
    return wait_until(lambda: [run.id for run in operator.runs(1)], "a run has begun", 30)[0]


def test_an_older_fact_that_is_replayed_does_not_overrule_a_newer_one(
    fleet: Fleet, producer: Producer
) -> None:
    celsius = f"I prefer Celsius for temperatures, {CANARY}."
    fahrenheit = f"I prefer Fahrenheit for temperatures, {CANARY}."
    with rejected(fleet.data_dir, "add"):
        old = producer.submit(user_id="ann", message=celsius)
        settled(old, TurnState.DEAD)
    new = producer.submit(user_id="ann", message=fahrenheit)
    settled(new, TurnState.STORED)

    with held(fleet.data_dir, "add"):
        go = ("dead", "replay", old.id, "--go", "--patience", "1s")
        assert "canary_not_settled" in fleet.afterword(*go, code=1).stdout
        assert_in_order(fleet, producer, celsius, fahrenheit, "while it is on its way")
    settled(old, TurnState.STORED)

    assert_in_order(fleet, producer, celsius, fahrenheit, "once it is stored")
    assert rows(fleet, [old, new]) == [1, 1]


def assert_in_order(fleet: Fleet, producer: Producer, older: str, newer: str, when: str) -> None:
    """Fail unless the prompt has both lines, the older one first."""
    job = producer.submit(user_id="ann", message="Which temperatures do I prefer?")
    job.wait(20)
    lines = told(fleet.claude.requests()[-1]["body"])[-1].splitlines()
    [first] = [at for at, line in enumerate(lines) if older in line]
    [second] = [at for at, line in enumerate(lines) if newer in line]
    assert first < second, when
    assert re.search(r"\[\d\d \w{3} \d{4}, turn \w+\]$", lines[first]), "with its own date"


def test_each_turn_is_replayed_once_though_its_operator_was_killed_in_the_middle(
    fleet: Fleet, producer: Producer, operator: Operator
) -> None:
    jobs = bury(fleet, producer, "kim")
    with pressed(fleet, "--tenant", "default", "--code", "rejected", "--rate", "10") as press:
        run_id = wait_until(
            lambda: [run.id for run in operator.runs(1) if 0 < run.left <= LETTERS - 4],
            "it is in the middle", 30,
        )[0]  # fmt: skip
        press.kill()
        press.wait()
    run = operator.run(run_id)
    assert (run.state, run.left > 0) == (RunState.RUNNING, True)

    ran = fleet.afterword("dead", "resume", run_id)

    assert f"run {run_id}: done, {LETTERS} of {LETTERS}: stored {LETTERS}" in ran.stdout
    assert operator.outcomes(run_id) == {job.id: Outcome.STORED for job in jobs}
    assert rows(fleet, jobs) == [1] * LETTERS
    assert {job.status().turn for job in jobs} == {TurnState.STORED}
    assert [letter.id for letter in operator.dead()] == []


def test_an_interrupt_leaves_a_run_that_says_how_to_go_on(
    fleet: Fleet, producer: Producer, operator: Operator
) -> None:
    jobs = bury(fleet, producer, "lea")
    with pressed(fleet, "--all", "--rate", "5", "--canary", "0") as press:
        run_id = wait_until(
            lambda: [run.id for run in operator.runs(1) if 0 < run.left <= LETTERS - 3],
            "it is in the middle", 30,
        )[0]  # fmt: skip
        press.send_signal(signal.SIGINT)
        _, said = press.communicate(timeout=30)
    assert press.returncode == 130
    assert f"to go on: afterword dead resume {run_id}" in said
    assert "Traceback" not in said
    run = operator.run(run_id)
    assert (run.state, run.reason) == (RunState.ABORTED, "interrupted")
    left = {letter.id for letter in operator.dead()}
    assert len(left) in (run.left, run.left - 1)

    shown = json.loads(fleet.afterword("dead", "resume", run_id, "--json").stdout)

    assert shown["outcomes"]["stored"] == LETTERS
    assert rows(fleet, jobs) == [1] * LETTERS


def test_a_bad_replay_touches_one_letter(
    fleet: Fleet, producer: Producer, operator: Operator
) -> None:
    jobs = bury(fleet, producer, "mia")
    with rejected(fleet.data_dir, "add"):
        ran = fleet.afterword("dead", "replay", "--all", "--go", "--rate", "100", code=1)
    assert f"stopped (canary_buried), 1 of {LETTERS}: dead 1" in ran.stdout
    assert sorted(letter.replays for letter in operator.dead()) == [0] * (LETTERS - 1) + [1]
    done = fleet.afterword("dead", "replay", "--all", "--go", "--rate", "100")
    assert f"done, {LETTERS} of {LETTERS}" in done.stdout
    assert rows(fleet, jobs) == [1] * LETTERS
