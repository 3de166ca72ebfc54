"""`python -m benchmarks.latency`: what a job waits beyond the providers, at two loads."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from benchmarks.added import Added, open_loop
from benchmarks.alone import alone
from benchmarks.contest import contest
from benchmarks.designs import Afterword
from benchmarks.figures import percentile
from benchmarks.plots import Points, curves
from benchmarks.provider import Pace
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage, cores

_PACE = Pace(model_ms=200, recall_ms=50)
_PER_SECOND = 100.0
_SHARE = 0.7

#: Answers of the provider a job; by how much its timers are late belongs to its own time.
_BOTH = 2

#: The goals in ms: the median and the 99th percentile at 100 a second, the latter near the limit.
_P50, _P99, _P99_NEAR = 6.0, 12.0, 60.0


def section(told: Told) -> Finding:
    """Find out how much a worker can do, then submit 100 a second, then 70 % of what it can."""
    with Stage(_PACE) as stage:
        ours = Afterword(stage, 0)
        saturation = _saturation(ours, told)
        steady = _runs(ours, "steady", _PER_SECOND, told)
        near = _runs(ours, "near", saturation * _SHARE, told)
        bare = _bare(stage, _PER_SECOND, told)
        bare_near = _bare(stage, saturation * _SHARE, told)
    rows = [
        Row("saturation", saturation, "jobs a second"),
        *_rows(f"{_PER_SECOND:g} a second", steady, _P50, _P99),
        *_bare_rows(f"{_PER_SECOND:g} a second", bare),
        *_rows(f"{_SHARE:.0%} of saturation", near, None, _P99_NEAR),
        *_bare_rows(f"{_SHARE:.0%} of saturation", bare_near),
    ]
    return Finding(rows, _TEXT, {"latency": _plot(steady, near)}, _as_json(steady, near))


_TEXT = (
    f"Recall takes {_PACE.recall_ms:g} ms and the model {_PACE.model_ms:g} ms, and by how much "
    "their timers are late on average; what a job took beyond that, submit and all. Jobs come at "
    "random moments; half of them are streamed, half waited for. Percentiles are medians over the "
    "runs. `late` is how late the load itself was. The two bare SDK calls, as often and in a loop "
    "of their own, are the least that can be added."
)


def _saturation(ours: Afterword, told: Told) -> float:
    found, left_out = contest([ours], 1, told.jobs)
    assert not left_out, left_out[ours.name]
    return found[ours.name][0].per_second


def _runs(ours: Afterword, name: str, per_second: float, told: Told) -> list[Added]:
    return [
        _run(ours, f"{name}{number}", per_second, max(told.jobs, round(per_second * 5)))
        for number in range(told.rounds)
    ]


def _run(ours: Afterword, run: str, per_second: float, count: int) -> Added:
    ours.crew.go()
    ours.stage.ask_provider("late")
    found = asyncio.run(open_loop(ours.settings, _PACE, run, per_second, count))
    ours.crew.halt()
    assert len(set(found.job_ids)) == count, "a job was accepted twice"
    assert len(found.first) + len(found.final) == count, "not every job was answered once"
    ours.check_each(found.job_ids)
    late_ms = _BOTH * ours.stage.ask_provider("late")
    return replace(
        found,
        first=[added - late_ms for added in found.first],
        final=[added - late_ms for added in found.final],
    )


def _rows(load: str, runs: Sequence[Added], p50: float | None, p99: float) -> list[Row]:
    rows = []
    for what, samples in (
        ("submit to first token", [run.first for run in runs]),
        ("submit to reply", [run.final for run in runs]),
    ):
        rows.append(Row(f"{load}: {what}, p50", _median(samples, 50), "ms", p50))
        rows.append(Row(f"{load}: {what}, p99", _median(samples, 99), "ms", p99))
    late = _median([run.late for run in runs], 99)
    return [*rows, Row(f"{load}: late, p99", late, "ms")]


def _bare(stage: Stage, per_second: float, told: Told) -> list[list[float]]:
    """Return what the two SDK calls of a job add by themselves, on the worker's core."""
    environ = {
        "BENCH_PROVIDER": stage.provider,
        "BENCH_REDIS": stage.redis(1),
        "MEM0_TELEMETRY": "False",
        "MEM0_DIR": str(stage.folder / "mem0"),
    }
    count = max(told.jobs, round(per_second * 5))
    argv = [sys.executable, "-m", "benchmarks.peers.open_floor", str(cores()[1])]
    argv += [str(per_second), str(count), _PACE.as_json()]
    found = []
    for _ in range(told.rounds):
        stage.ask_provider("late")
        bare = subprocess.run(  # noqa: S603 our own program
            argv, env=os.environ | environ, check=True, stdout=subprocess.PIPE
        )
        late_ms = _BOTH * stage.ask_provider("late")
        found.append([added - late_ms for added in json.loads(bare.stdout)])
    return found


def _bare_rows(load: str, runs: Sequence[Sequence[float]]) -> list[Row]:
    return [
        Row(f"{load}: the two bare SDK calls, p{percent}", _median(runs, percent), "ms")
        for percent in (50, 99)
    ]


def _median(runs: Sequence[Sequence[float]], percent: float) -> float:
    return statistics.median(percentile(run, percent) for run in runs)


def _plot(steady: Sequence[Added], near: Sequence[Added]) -> str:
    named = {f"{_PER_SECOND:g} a second": steady, f"{_SHARE:.0%} of saturation": near}
    lines: dict[str, Points] = {}
    for load, runs in named.items():
        lines[f"first token, {load}"] = _shares([run.first for run in runs])
        lines[f"reply, {load}"] = _shares([run.final for run in runs])
    return curves(lines, "share of jobs, %", "added, ms")


def _shares(runs: Sequence[Sequence[float]]) -> Points:
    return [(percent, _median(runs, percent)) for percent in range(1, 100)]


def _as_json(steady: Sequence[Added], near: Sequence[Added]) -> dict[str, list[dict[str, float]]]:
    return {
        name: [
            {f"{what}, p{percent}": percentile(getattr(run, what), percent)
             for what in ("first", "final", "late") for percent in (50, 90, 99)}
            for run in runs
        ]
        for name, runs in (("steady", steady), ("near", near))
    }  # fmt: skip


if __name__ == "__main__":
    alone(section)
