"""`python -m benchmarks.two_cores`: what a second worker process adds to one."""

from __future__ import annotations

import statistics
import time

from benchmarks.alone import alone
from benchmarks.designs import Afterword
from benchmarks.provider import Pace
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage
from tests.kit.waiting import wait_until

#: Slots bound the rate, not the core that all processes share here: 20 of them do 40 a second.
_PACE, _SLOTS = Pace(model_ms=500), 20
_JOBS_OF_A_SLOT = 10
_LEAST, _PATIENCE_S = 1.9, 300.0


def section(told: Told) -> Finding:
    """Let one process do jobs, then two twice as many, from one queue, in turns."""
    with Stage(_PACE) as stage:
        first, second = (Afterword(stage, 0, _SLOTS) for _ in range(2))
        for ours in (first, second):
            ours.crew.ready_s()
            ours.crew.halt()
        _run("warm1", first)
        _run("warm2", second)
        runs = [
            {"one": _run(f"one{n}", first), "two": _run(f"two{n}", first, second)}
            for n in range(told.rounds)
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
            f"A model of {_PACE.model_ms:g} ms and {_SLOTS} slots a process: the rate is bound by "
            "slots, for both processes have the one core that the stand-ins leave. It shows that "
            "processes do not hold each other up, in Redis or elsewhere. Two full cores would take "
            "a third one for the stand-ins; what speaks for them is the CPU of a job."
        ),
        runs=runs,
    )


def _run(name: str, *workers: Afterword) -> tuple[float, float]:
    """Return jobs a second and CPU of one in ms."""
    count = _SLOTS * _JOBS_OF_A_SLOT * len(workers)
    before, cpu_s = workers[0].answered(), sum(one.crew.cpu_s for one in workers)
    workers[0].submit(name, count)
    start = time.perf_counter()
    for one in workers:
        one.crew.go()
    wait_until(lambda: workers[0].answered() >= before + count, "all is answered", _PATIENCE_S)
    seconds = time.perf_counter() - start
    cpu_s = sum(one.crew.cpu_s for one in workers) - cpu_s
    for one in workers:
        one.crew.halt()
    workers[0].check(name, count)
    return count / seconds, cpu_s / count * 1000


if __name__ == "__main__":
    alone(section)
