"""`python -m benchmarks.start`: what a worker and a backend pay before their first job."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys

from benchmarks.alone import alone
from benchmarks.designs import Afterword
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage

_READY_S, _READY_MIB, _IMPORT_MS = 2.5, 150, 150


def section(told: Told) -> Finding:
    """Start a worker until it is ready; import the producer; each as often as there are rounds."""
    with Stage() as stage:
        workers = [_worker(stage) for _ in range(told.rounds)]
    imports = [_import_ms("producer") - _import_ms("sys") for _ in range(told.rounds)]
    ready_s, memory_mib, cpu_s = (
        statistics.median(column) for column in zip(*workers, strict=True)
    )
    return Finding(
        rows=[
            Row("ready after", ready_s, "s", _READY_S),
            Row("CPU until it is ready", cpu_s, "s"),
            Row("memory before the first job", memory_mib, "MiB", _READY_MIB),
            Row("`import producer`, CPU", statistics.median(imports), "ms", _IMPORT_MS),
        ],
        text="Medians; bytecode is there, an import is measured less an empty Python's start.",
        runs={"workers": workers, "imports": imports},
    )


def _worker(stage: Stage) -> tuple[float, float, float]:
    """Return seconds until it is ready, its memory then, and its CPU until then."""
    ours = Afterword(stage, 0)
    found = ours.crew.ready_s(), ours.crew.memory_mib, ours.crew.cpu_s
    ours.crew.end()
    return found


def _import_ms(module: str) -> float:
    """Return the CPU of a Python that imports a module and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)  # noqa: S603 our own
    after = os.times()
    user, system = after.children_user, after.children_system
    return (user + system - before.children_user - before.children_system) * 1000


if __name__ == "__main__":
    alone(section)
