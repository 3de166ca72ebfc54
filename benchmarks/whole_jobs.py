"""Whole jobs through one worker, as fast as it can, beside other designs."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.contest import contest
from benchmarks.designs import FLOOR, Afterword, Design, local, others
from benchmarks.figures import Found, as_json, medians, ratios, table
from benchmarks.peers.jobs import IN_FLIGHT, STREAMED
from benchmarks.plots import bars
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage

_BUSY = 0.9

_MOST_OF_FLOOR = 1.4
_LEAST_RATES = {
    "hand-written loop": 0.85, "taskiq": 1.1, "Celery, 200 threads": 2.0, "Celery prefork, 8": 3.0,
}  # fmt: skip


def section(told: Told) -> Finding:
    """Let designs take turns; say what each job costs."""
    with Stage() as stage:
        found, left_out = contest(_designs(stage, told.peers, told.designs), told.rounds, told.jobs)
    assert Afterword.name in found, left_out[Afterword.name]
    text = [
        _said(found),
        *(f"{name}: {why}" for name, why in _too_slow(found).items()),
        *(f"Left out: {name}: {why}" for name, why in left_out.items()),
        table(found, Afterword.name),
    ]
    return Finding(
        rows=_rows(found),
        text="\n\n".join(text),
        plots={"cpu": bars({name: one.cpu_ms for name, one in medians(found).items()}, "ms")},
        runs=as_json(found),
    )


def _designs(stage: Stage, peers: str | None, only: Sequence[str]) -> list[Design]:
    designs = local(stage) + (others(stage, peers) if peers else [])
    chosen = [one for one in designs if not only or one.name == Afterword.name or one.name in only]
    for left_out in designs:
        if left_out not in chosen:
            left_out.crew.end()
    return chosen


def _rows(found: Found) -> list[Row]:
    against = ratios(found, Afterword.name)
    rows = [
        Row("CPU of a job over that of its two bare SDK calls", each["cpu"], "x", _MOST_OF_FLOOR)
        for name, each in against.items()
        if name == FLOOR
    ]
    rows += [
        Row(f"jobs a second over {name}", against[name]["per_second"], "x", at_least=least)
        for name, least in _LEAST_RATES.items()
        if name in against
    ]
    return rows


def _said(found: Found) -> str:
    """Return what has to be known of a run."""
    how = "streamed" if STREAMED else "not streamed"
    return (
        f"{IN_FLIGHT} jobs in flight, answers {how}, no time to answer; medians of "
        f"{len(found[Afterword.name])} runs (smallest to largest); the two right columns are "
        "medians of ratios, run by run."
    )


def _too_slow(found: Found) -> dict[str, str]:
    return {
        name: f"the other core was {figure.other_core:.0%} busy: too slow."
        for name, figure in medians(found).items()
        if figure.other_core > _BUSY
    }
