"""Designs that take turns, so that a machine that grows slower is slower for all of them."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.designs import Design
from benchmarks.figures import Figure
from tests.kit.waiting import wait_until

_PATIENCE_S = 60.0
_WARM_JOBS = 300


def contest(
    designs: Sequence[Design], rounds: int, count: int
) -> tuple[dict[str, list[Figure]], dict[str, str]]:
    """Let each design do `count` jobs in turn, `rounds` times, after a run to warm up.

    Returns the figures, and why a design was left out: it did not finish, or lost a job.
    """
    found: dict[str, list[Figure]] = {design.name: [] for design in designs}
    left_out: dict[str, str] = {}
    for number in range(rounds + 1):
        for design in [one for one in designs if one.name in found]:
            try:
                figure = _run(design, f"run{number}", count if number else _WARM_JOBS)
            except AssertionError as error:
                design.crew.end()
                left_out[design.name] = str(error)
                del found[design.name]
                continue
            if number:
                found[design.name].append(figure)
    return found, left_out


def _run(design: Design, run: str, count: int) -> Figure:
    """Queue jobs while nobody does them, then let them be done, alone on the core."""
    design.crew.halt()
    design.submit(run, count)
    before, cpu_s, served_s = design.answered(), design.crew.cpu_s, design.stage.cpu_s
    start = time.perf_counter()
    design.crew.go()
    wait_until(lambda: _done(design, before + count), f"{design.name} is done", _PATIENCE_S)
    seconds = time.perf_counter() - start
    cpu_s, served_s = design.crew.cpu_s - cpu_s, design.stage.cpu_s - served_s
    memory_mib = design.crew.memory_mib
    design.crew.halt()
    design.check(run, count)
    return Figure(count / seconds, cpu_s / count * 1000, memory_mib, served_s / seconds)


def _done(design: Design, count: int) -> bool:
    design.crew.check()
    return design.answered() >= count
