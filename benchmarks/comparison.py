"""Measuring designs in turns, so that a machine that becomes slower is slower for all."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.designs import Design
from benchmarks.figures import Figure
from tests.kit.waiting import wait_until

_PATIENCE_S = 60.0
_WARM_JOBS = 300


def measure_in_turns(
    designs: Sequence[Design], rounds: int, count: int
) -> tuple[dict[str, list[Figure]], dict[str, str]]:
    """Measure each design in turn, `rounds` times with `count` jobs, after a warm-up run.

    Returns the figures by design, and the reasons of designs that were left out because they did
    not finish or lost a job.
    """
    found: dict[str, list[Figure]] = {design.name: [] for design in designs}
    left_out: dict[str, str] = {}
    for number in range(rounds + 1):
        for design in [one for one in designs if one.name in found]:
            try:
                figure = _run(design, f"run{number}", count if number else _WARM_JOBS)
            except AssertionError as error:
                design.process.kill()
                left_out[design.name] = str(error)
                del found[design.name]
                continue
            if number:
                found[design.name].append(figure)
    return found, left_out


def _run(design: Design, run: str, count: int) -> Figure:
    """Queue jobs while the design is paused, then measure it doing them, alone on its core."""
    design.process.pause()
    design.submit(run, count)
    before, cpu_s, served_s = design.answered(), design.process.cpu_s, design.testbed.cpu_s
    start = time.perf_counter()
    design.process.resume()
    wait_until(
        lambda: _done(design, before + count), f"{design.name} has answered all jobs", _PATIENCE_S
    )
    seconds = time.perf_counter() - start
    cpu_s, served_s = design.process.cpu_s - cpu_s, design.testbed.cpu_s - served_s
    memory_mib = design.process.memory_mib
    design.process.pause()
    design.check(run, count)
    return Figure(count / seconds, cpu_s / count * 1000, memory_mib, served_s / seconds)


def _done(design: Design, count: int) -> bool:
    design.process.assert_running()
    return design.answered() >= count
