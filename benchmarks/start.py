"""Start of a worker, and import of the producer."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.designs import Afterword
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed

_READY_S, _READY_MIB, _IMPORT_MS = 2.5, 150, 150

#: The libraries below each: what neither can do without.
_UNDER_WORKER = "celery, redis.asyncio, anthropic, mem0"
_UNDER_PRODUCER = "asyncio, pydantic, redis.asyncio"

#: Proportional memory: shared pages count in part.
_PRINT_KIB = (
    "print(*(line.split()[1] for line in open('/proc/self/smaps_rollup') if line[:4] == 'Pss:'))"
)


def section(options: Options) -> Finding:
    """Start a worker until it is ready, and import the producer, once in each round."""
    with Testbed() as testbed:
        workers = [_worker(testbed) for _ in range(options.rounds)]
        under_mib = _imported_mib(_UNDER_WORKER, testbed.folder)
    imports, bare = (
        [_import_ms(modules) - _import_ms("sys") for _ in range(options.rounds)]
        for modules in ("afterword.producer", _UNDER_PRODUCER)
    )
    wait_until_ready, memory_mib, cpu_s = (
        statistics.median(column) for column in zip(*workers, strict=True)
    )
    return Finding(
        rows=[
            Row("ready after", wait_until_ready, "s", _READY_S),
            Row("CPU until it is ready", cpu_s, "s"),
            Row("memory before the first job", memory_mib, "MiB", _READY_MIB),
            Row(f"memory of Python with {_UNDER_WORKER}", under_mib, "MiB"),
            Row("`import afterword.producer`, CPU", statistics.median(imports), "ms", _IMPORT_MS),
            Row(f"import of {_UNDER_PRODUCER}, CPU", statistics.median(bare), "ms"),
        ],
        text="Medians. Bytecode is cached; imports are measured less the start of an empty Python.",
        runs={"workers": workers, "imports": imports, "bare imports": bare},
    )


def _worker(testbed: Testbed) -> tuple[float, float, float]:
    """Return the seconds until a worker is ready, and its memory and CPU at that time."""
    ours = Afterword(testbed, 0)
    found = ours.process.wait_until_ready(), ours.process.memory_mib, ours.process.cpu_s
    ours.process.kill()
    return found


def _imported_mib(modules: str, folder: Path) -> float:
    """Return the memory (MiB) of a Python that has imported modules."""
    printed = subprocess.run(  # noqa: S603 our own
        [sys.executable, "-c", f"import {modules}\n{_PRINT_KIB}"],
        env=os.environ | {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)},
        check=True,
        capture_output=True,
    )
    return int(printed.stdout) / 1024


def _import_ms(modules: str) -> float:
    """Return the CPU (ms) of a Python that imports modules and exits."""
    before = os.times()
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)  # noqa: S603 our own
    after = os.times()
    user, system = after.children_user, after.children_system
    return (user + system - before.children_user - before.children_system) * 1000


if __name__ == "__main__":
    run_alone(section)
