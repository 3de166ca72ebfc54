"""`python -m benchmarks.start`: what a worker and a backend pay before their first job."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.alone import alone
from benchmarks.designs import Afterword
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage

_READY_S, _READY_MIB, _IMPORT_MS = 2.5, 150, 150

#: What neither can do without, whatever is ours.
_UNDER_WORKER = "celery, redis.asyncio, anthropic, mem0"
_UNDER_PRODUCER = "asyncio, pydantic, redis.asyncio"

#: Of memory, shared pages in part.
_TELL_KIB = (
    "print(*(line.split()[1] for line in open('/proc/self/smaps_rollup') if line[:4] == 'Pss:'))"
)


def section(told: Told) -> Finding:
    """Start a worker until it is ready; import the producer; each as often as there are rounds."""
    with Stage() as stage:
        workers = [_worker(stage) for _ in range(told.rounds)]
        under_mib = _imported_mib(_UNDER_WORKER, stage.folder)
    imports, floors = (
        [_import_ms(modules) - _import_ms("sys") for _ in range(told.rounds)]
        for modules in ("afterword.producer", _UNDER_PRODUCER)
    )
    ready_s, memory_mib, cpu_s = (
        statistics.median(column) for column in zip(*workers, strict=True)
    )
    return Finding(
        rows=[
            Row("ready after", ready_s, "s", _READY_S),
            Row("CPU until it is ready", cpu_s, "s"),
            Row("memory before the first job", memory_mib, "MiB", _READY_MIB),
            Row(f"memory of Python with {_UNDER_WORKER}", under_mib, "MiB"),
            Row("`import afterword.producer`, CPU", statistics.median(imports), "ms", _IMPORT_MS),
            Row(f"import of {_UNDER_PRODUCER}, CPU", statistics.median(floors), "ms"),
        ],
        text="Medians; bytecode is there, an import is measured less an empty Python's start.",
        runs={"workers": workers, "imports": imports, "floors": floors},
    )


def _worker(stage: Stage) -> tuple[float, float, float]:
    """Return seconds until it is ready, its memory then, and its CPU until then."""
    ours = Afterword(stage, 0)
    found = ours.crew.ready_s(), ours.crew.memory_mib, ours.crew.cpu_s
    ours.crew.end()
    return found


def _imported_mib(modules: str, folder: Path) -> float:
    """Return the memory of a Python that has imported modules."""
    told = subprocess.run(  # noqa: S603 our own
        [sys.executable, "-c", f"import {modules}\n{_TELL_KIB}"],
        env=os.environ | {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)},
        check=True,
        capture_output=True,
    )
    return int(told.stdout) / 1024


def _import_ms(modules: str) -> float:
    """Return the CPU of a Python that imports modules and ends."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)  # noqa: S603 our own
    after = os.times()
    user, system = after.children_user, after.children_system
    return (user + system - before.children_user - before.children_system) * 1000


if __name__ == "__main__":
    alone(section)
