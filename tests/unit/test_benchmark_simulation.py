"""The simulation behind the capacity page, against exact results of queueing theory."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from benchmarks.simulation import BUSY, COSTS, Costs, plan, table, waits


@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_one_server_waits_as_long_as_the_formula_says(load: float) -> None:
    found = waits(load * 1000, servers=1, service_ms=1.0, count=200_000)
    assert statistics.fmean(found) == pytest.approx(load / (1 - load), rel=0.1)


def test_two_servers_wait_as_long_as_the_formula_says() -> None:
    load = 0.7
    found = waits(2 * load * 1000, servers=2, service_ms=1.0, count=200_000)
    assert statistics.fmean(found) == pytest.approx(load**2 / (1 - load**2), rel=0.1)


def test_a_seed_gives_the_same_waits_again() -> None:
    assert waits(500, 1, 1.0, 100, seed=3) == waits(500, 1, 1.0, 100, seed=3)
    assert waits(500, 1, 1.0, 100, seed=3) != waits(500, 1, 1.0, 100, seed=4)


def test_a_plan_leaves_each_core_its_reserve() -> None:
    found = plan(10_000, Costs(worker_ms=1.6, redis_ms=0.2, answer_s=2.0), busy=0.5)
    assert (found.processes, found.shards, found.in_flight) == (32, 4, 20_000)
    assert found.slots == 782


def test_the_smallest_plan_is_one_of_each() -> None:
    found = plan(1, Costs(worker_ms=1.6, redis_ms=0.2, answer_s=2.0), busy=0.5)
    assert (found.processes, found.shards) == (1, 1)


def test_the_capacity_plan_shows_what_the_simulation_finds() -> None:
    assert table(COSTS, BUSY) in Path("docs/explanation/capacity.md").read_text()
