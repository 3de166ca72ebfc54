"""Latency that Afterword adds to the time of the providers, at two loads."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.added_latency import LatencySamples, open_loop
from benchmarks.comparison import measure_in_turns
from benchmarks.designs import Afterword
from benchmarks.figures import percentile
from benchmarks.plots import Points, curves
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed, cores

_TIMING = AnswerTiming(model_ms=200, recall_ms=50)
_PER_SECOND = 100.0
_SHARE = 0.7

#: Answers of the stand-in a job. By how much its timers are late counts as the providers' time.
_ANSWERS_OF_A_JOB = 2

#: Goals in ms: p50 and p99 at 100 jobs per second, and p99 near saturation.
_P50, _P99, _P99_NEAR = 6.0, 12.0, 60.0


def section(options: Options) -> Finding:
    """Find the saturation of a worker, then submit 100 jobs per second, then 70 % of saturation."""
    with Testbed(_TIMING) as testbed:
        ours = Afterword(testbed, 0)
        saturation = _saturation(ours, options)
        steady = _runs(ours, "steady", _PER_SECOND, options)
        near = _runs(ours, "near", saturation * _SHARE, options)
        bare = _bare(testbed, _PER_SECOND, options)
        bare_near = _bare(testbed, saturation * _SHARE, options)
    rows = [
        Row("saturation", saturation, "jobs a second"),
        *_rows(f"{_PER_SECOND:g} a second", steady, _P50, _P99),
        *_bare_rows(f"{_PER_SECOND:g} a second", bare),
        *_rows(f"{_SHARE:.0%} of saturation", near, None, _P99_NEAR),
        *_bare_rows(f"{_SHARE:.0%} of saturation", bare_near),
    ]
    return Finding(rows, _TEXT, {"latency": _plot(steady, near)}, _as_json(steady, near))


_TEXT = (
    f"A recall takes {_TIMING.recall_ms:g} ms and the model {_TIMING.model_ms:g} ms. The figures "
    "are the time of a job beyond that, submit included, less the average delay of the stand-in's "
    "timers. Jobs are submitted at random moments; half of them are streamed, half waited for. "
    "Percentiles are medians over the runs. `late` is by how much the load itself was late. The "
    "two bare SDK calls at the same rate are the least that can be added."
)


def _saturation(ours: Afterword, options: Options) -> float:
    found, left_out = measure_in_turns([ours], 1, options.jobs)
    assert not left_out, left_out[ours.name]
    return found[ours.name][0].per_second


def _runs(ours: Afterword, name: str, per_second: float, options: Options) -> list[LatencySamples]:
    return [
        _run(ours, f"{name}{number}", per_second, max(options.jobs, round(per_second * 5)))
        for number in range(options.rounds)
    ]


def _run(ours: Afterword, run: str, per_second: float, count: int) -> LatencySamples:
    ours.process.resume()
    ours.testbed.ask_provider("late")
    found = asyncio.run(open_loop(ours.settings, _TIMING, run, per_second, count))
    ours.process.pause()
    assert len(set(found.job_ids)) == count, "a job was accepted twice"
    assert len(found.first) + len(found.final) == count, "not every job was answered once"
    ours.check_each(found.job_ids)
    late_ms = _ANSWERS_OF_A_JOB * ours.testbed.ask_provider("late")
    return replace(
        found,
        first=[added - late_ms for added in found.first],
        final=[added - late_ms for added in found.final],
    )


def _rows(load: str, runs: Sequence[LatencySamples], p50: float | None, p99: float) -> list[Row]:
    rows = []
    for what, samples in (
        ("submit to first token", [run.first for run in runs]),
        ("submit to reply", [run.final for run in runs]),
    ):
        rows.append(Row(f"{load}: {what}, p50", _median(samples, 50), "ms", p50))
        rows.append(Row(f"{load}: {what}, p99", _median(samples, 99), "ms", p99))
    late = _median([run.late for run in runs], 99)
    return [*rows, Row(f"{load}: late, p99", late, "ms")]


def _bare(testbed: Testbed, per_second: float, options: Options) -> list[list[float]]:
    """Return the latency that the two SDK calls add by themselves, on the worker's core."""
    environ = {
        "BENCH_PROVIDER": testbed.provider,
        "BENCH_REDIS": testbed.redis(1),
        "MEM0_TELEMETRY": "False",
        "MEM0_DIR": str(testbed.folder / "mem0"),
    }
    count = max(options.jobs, round(per_second * 5))
    argv = [sys.executable, "-m", "benchmarks.peers.bare_calls_open_loop", str(cores()[1])]
    argv += [str(per_second), str(count), _TIMING.as_json()]
    found = []
    for _ in range(options.rounds):
        testbed.ask_provider("late")
        bare = subprocess.run(  # noqa: S603 our own program
            argv, env=os.environ | environ, check=True, stdout=subprocess.PIPE
        )
        late_ms = _ANSWERS_OF_A_JOB * testbed.ask_provider("late")
        found.append([added - late_ms for added in json.loads(bare.stdout)])
    return found


def _bare_rows(load: str, runs: Sequence[Sequence[float]]) -> list[Row]:
    return [
        Row(f"{load}: the two bare SDK calls, p{percent}", _median(runs, percent), "ms")
        for percent in (50, 99)
    ]


def _median(runs: Sequence[Sequence[float]], percent: float) -> float:
    return statistics.median(percentile(run, percent) for run in runs)


def _plot(steady: Sequence[LatencySamples], near: Sequence[LatencySamples]) -> str:
    named = {f"{_PER_SECOND:g} a second": steady, f"{_SHARE:.0%} of saturation": near}
    lines: dict[str, Points] = {}
    for load, runs in named.items():
        lines[f"first token, {load}"] = _shares([run.first for run in runs])
        lines[f"reply, {load}"] = _shares([run.final for run in runs])
    return curves(lines, "share of jobs, %", "added, ms")


def _shares(runs: Sequence[Sequence[float]]) -> Points:
    return [(percent, _median(runs, percent)) for percent in range(1, 100)]


def _as_json(
    steady: Sequence[LatencySamples], near: Sequence[LatencySamples]
) -> dict[str, list[dict[str, float]]]:
    return {
        name: [
            {f"{what}, p{percent}": percentile(getattr(run, what), percent)
             for what in ("first", "final", "late") for percent in (50, 90, 99)}
            for run in runs
        ]
        for name, runs in (("steady", steady), ("near", near))
    }  # fmt: skip


if __name__ == "__main__":
    run_alone(section)
