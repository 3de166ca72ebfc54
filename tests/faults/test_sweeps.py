"""A worker is killed or stopped at every step; every turn is answered and stored once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.kit.fault_runs.crash_run import CrashRun, SharedServers, WorkerFault, shared_servers
from tests.kit.fault_runs.delivery_report import table
from tests.kit.servers.step_proxy import END_OF_ANSWER, HINT, Phase, TrapPoint

pytestmark = [pytest.mark.faults, pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

#: All steps, or one of each sort.
WHOLE = os.environ.get("FAULTS") == "whole"

#: Runs at the same time: most of a run is waiting for a lease to run out.
AT_ONCE = 8

#: What the life of a job and of its turn is made of; nothing else is trapped.
LIFE = (
    HINT, "job/claim", "search", "claude", END_OF_ANSWER, "job/delta", "job/finish",
    "turn/claim", "turn/begin", "add", "turn/record_event", "event", "turn/settle", "turn/release",
)  # fmt: skip
LANE = LIFE[LIFE.index("turn/claim") :]


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    with shared_servers(tmp_path_factory.mktemp("sweep")) as made:
        yield made


@pytest.fixture(scope="module")
def steps(on: SharedServers) -> list[tuple[str, int]]:
    """Give the steps of a run that nothing happens to."""
    run = CrashRun(on)
    delivery = run.meet("none", None)
    assert not delivery.wrong, delivery.wrong
    assert run.most_at_once > 1, "no batch was under way"
    return [step for step in run.steps if step[0] in LIFE]


def test_a_run_without_a_fault_takes_every_step(steps: Sequence[tuple[str, int]]) -> None:
    assert {name for name, _ in steps} == set(LIFE)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("fault", ["kill", "stop"])
def test_a_fault_at_any_step_leaves_every_turn_answered_and_stored_once(
    on: SharedServers, steps: Sequence[tuple[str, int]], fault: WorkerFault
) -> None:
    chosen = [(name, nth) for name, nth in steps if WHOLE or nth == _chosen(name, steps)]
    points = [point for name, nth in chosen for point in _points(name, nth)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = list(pool.map(lambda point: CrashRun(on).meet(fault, point), points))
    print(table(f"{fault} sweep, {len(points)} points", reports))
    wrong = {
        str(point): delivery.wrong
        for point, delivery in zip(points, reports, strict=True)
        if delivery.wrong
    }
    assert not wrong


def _chosen(name: str, steps: Sequence[tuple[str, int]]) -> int:
    """Return which step of a sort is enough: of a job's the first, of a turn's that of a batch."""
    return dict(steps)[name] if name in LANE else 1


def _points(name: str, nth: int) -> list[TrapPoint]:
    phases: Sequence[Phase] = ("before", "after")
    if name == HINT:
        phases = ("after",)  # popped, and never arrived
    if name == END_OF_ANSWER:
        phases = ("before",)
    return [TrapPoint(name, nth, phase) for phase in phases]
