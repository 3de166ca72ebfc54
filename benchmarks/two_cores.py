"""The rate of two worker processes over that of one."""

from __future__ import annotations

import statistics
import time

from benchmarks.designs import Afterword
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed
from tests.kit.waiting import wait_until

#: Slots limit the rate, not the core that the processes share: 20 slots do 40 jobs per second.
_TIMING, _SLOTS = AnswerTiming(model_ms=500), 20
_JOBS_OF_A_SLOT = 10
_LEAST, _PATIENCE_S = 1.9, 300.0


def section(options: Options) -> Finding:
    """Measure one process, then two with twice as many jobs from one queue, in turns."""
    with Testbed(_TIMING) as testbed:
        first, second = (Afterword(testbed, 0, _SLOTS) for _ in range(2))
        for ours in (first, second):
            ours.process.wait_until_ready()
            ours.process.pause()
        _run("warm1", first)
        _run("warm2", second)
        runs = [
            {"one": _run(f"one{n}", first), "two": _run(f"two{n}", first, second)}
            for n in range(options.rounds)
        ]
    rate = [run["two"][0] / run["one"][0] for run in runs]
    cpu = [run["two"][1] / run["one"][1] for run in runs]
    return Finding(
        rows=[
            Row(
                "jobs a second, two processes over one", statistics.median(rate), "x", None, _LEAST
            ),
            Row("CPU of a job, two processes over one", statistics.median(cpu), "x", 1.1),
        ],
        text=(
            f"The model takes {_TIMING.model_ms:g} ms and each process has {_SLOTS} slots, so "
            "slots limit the rate: both processes share the one core that the stand-ins leave. "
            "This shows that processes do not block each other, in Redis or elsewhere. The CPU of "
            "a job shows what two full cores would do; measuring that takes a third core."
        ),
        runs=runs,
    )


def _run(name: str, *workers: Afterword) -> tuple[float, float]:
    """Return jobs per second, and the CPU of a job in ms."""
    count = _SLOTS * _JOBS_OF_A_SLOT * len(workers)
    before, cpu_s = workers[0].answered(), sum(one.process.cpu_s for one in workers)
    workers[0].submit(name, count)
    start = time.perf_counter()
    for one in workers:
        one.process.resume()
    wait_until(
        lambda: workers[0].answered() >= before + count, "all jobs are answered", _PATIENCE_S
    )
    seconds = time.perf_counter() - start
    cpu_s = sum(one.process.cpu_s for one in workers) - cpu_s
    for one in workers:
        one.process.pause()
    workers[0].check(name, count)
    return count / seconds, cpu_s / count * 1000


if __name__ == "__main__":
    run_alone(section)
