"""Rate and CPU of whole jobs, beside the bare SDK calls and other designs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.comparison import measure_in_turns
from benchmarks.designs import BARE_CALLS, Afterword, Design, local, others
from benchmarks.figures import Found, as_json, medians, ratios, table
from benchmarks.peers.jobs import IN_FLIGHT, STREAMED
from benchmarks.plots import bars
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed

_BUSY = 0.9

_MOST_OVER_BARE = 1.4
_LEAST_RATES = {
    "hand-written loop": 0.85, "taskiq": 1.1, "Celery, 200 threads": 2.0, "Celery prefork, 8": 3.0,
}  # fmt: skip


def section(options: Options) -> Finding:
    """Measure the designs in turns."""
    with Testbed() as testbed:
        designs = _designs(testbed, options.peers, options.designs)
        ours = [one for one in designs if isinstance(one, Afterword)]
        for one in ours:
            one.counts_degraded = True
        found, left_out = measure_in_turns(designs, options.rounds, options.jobs)
    failures = _degraded(ours)
    assert Afterword.name in found, left_out[Afterword.name]
    text = [
        _said(found),
        *(f"{name}: {why}" for name, why in _limited_by_the_other_core(found).items()),
        *(f"Left out: {name}: {why}" for name, why in left_out.items()),
        table(found, Afterword.name),
    ]
    return Finding(
        rows=_rows(found),
        text="\n\n".join(text),
        plots={"cpu": bars({name: one.cpu_ms for name, one in medians(found).items()}, "ms")},
        runs=as_json(found),
        failures=failures,
    )


def _designs(testbed: Testbed, peers: str | None, only: Sequence[str]) -> list[Design]:
    designs = local(testbed) + (others(testbed, peers) if peers else [])
    chosen = [one for one in designs if not only or one.name == Afterword.name or one.name in only]
    for left_out in designs:
        if left_out not in chosen:
            left_out.process.kill()
    return chosen


def _degraded(ours: Iterable[Afterword]) -> list[str]:
    """Return how many replies came without memory, for each reason; the warm-up counts, too."""
    return [
        f"{count} replies of {one.name} came without memory: {why}"
        for one in ours
        for why, count in one.degraded.items()
    ]


def _rows(found: Found) -> list[Row]:
    against = ratios(found, Afterword.name)
    rows = [
        Row("CPU of a job over that of its two bare SDK calls", each["cpu"], "x", _MOST_OVER_BARE)
        for name, each in against.items()
        if name == BARE_CALLS
    ]
    rows += [
        Row(f"jobs a second over {name}", against[name]["per_second"], "x", at_least=least)
        for name, least in _LEAST_RATES.items()
        if name in against
    ]
    return rows


def _said(found: Found) -> str:
    """Return how the runs were made."""
    how = "streamed" if STREAMED else "not streamed"
    return (
        f"{IN_FLIGHT} jobs in flight, answers {how}, providers answer at once. Medians of "
        f"{len(found[Afterword.name])} runs (smallest to largest); the two columns on the right "
        "are medians of the ratios of each run."
    )


def _limited_by_the_other_core(found: Found) -> dict[str, str]:
    return {
        name: f"Redis and the providers used {figure.other_core:.0%} of their core."
        for name, figure in medians(found).items()
        if figure.other_core > _BUSY
    }
