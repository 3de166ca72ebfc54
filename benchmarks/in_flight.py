"""CPU and memory with 1,000 jobs in flight in one worker, compared with 200."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from benchmarks.comparison import measure_in_turns
from benchmarks.designs import BARE_CALLS, Afterword, BareCalls, Design
from benchmarks.figures import Figure, as_json, medians, table
from benchmarks.plots import curves
from benchmarks.provider import AnswerTiming
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed

_FEW, _MANY = 200, 1000
_TIMING = AnswerTiming(model_ms=2000)

#: Answers that take so long that the CPU of 1,000 jobs, over a second, is hidden behind them.
_LONG = AnswerTiming(model_ms=10_000)

_MOST_GROWTH, _MOST_MIB = 1.2, 260.0
_MOST_OVER_BARE = 1.3
_MOST_S = _LONG.whole_ms / 1000 * 1.05 + 1


def section(options: Options) -> Finding:
    """Measure a worker and the two bare SDK calls doing 1,000 jobs, 200 and 1,000 at a time."""
    with Testbed(_TIMING) as testbed:
        designs = _designs(testbed)
        found, left_out = measure_in_turns(list(designs.values()), options.rounds, _MANY)
        assert not left_out, str(left_out)
        peak_mib = designs[_ours(_MANY)].process.peak_mib
    rows = [*_rows(found), Row("most memory resident", peak_mib, "MiB", _MOST_MIB), *_long()]
    plot = curves(_cost(found), "jobs in flight", "CPU of a job, ms")
    return Finding(rows, _said(found), {"in_flight": plot}, as_json(found))


def _long() -> list[Row]:
    """Measure 1,000 long jobs at once; return when the last was answered."""
    with Testbed(_LONG) as testbed:
        found, left_out = measure_in_turns(list(_designs(testbed, [_MANY]).values()), 1, _MANY)
    assert not left_out, str(left_out)
    last_s = {name: _MANY / figures[0].per_second for name, figures in found.items()}
    name = f"all answered, at 1,000 with a model of {_LONG.model_ms / 1000:g} s, after"
    return [
        Row(name, last_s[_ours(_MANY)], "s", _MOST_S),
        Row("the same of the bare SDK calls", last_s[_bare(_MANY)], "s"),
    ]


def _designs(testbed: Testbed, each: Sequence[int] = (_FEW, _MANY)) -> dict[str, Design]:
    designs: list[Design] = []
    for number, slots in enumerate(each):
        designs.append(Afterword(testbed, 2 * number, slots, _ours(slots)))
        designs.append(
            BareCalls(testbed, _bare(slots), "bare_calls", database=2 * number + 1, in_flight=slots)
        )
    return {design.name: design for design in designs}


def _ours(slots: int) -> str:
    return f"{Afterword.name}, {slots} in flight"


def _bare(slots: int) -> str:
    return f"{BARE_CALLS}, {slots} in flight"


def _said(found: Mapping[str, Sequence[Figure]]) -> str:
    return f"{_MANY} jobs; the model takes {_TIMING.model_ms / 1000:g} s.\n\n" + table(
        found, _ours(_MANY)
    )


def _rows(found: Mapping[str, Sequence[Figure]]) -> list[Row]:
    return [
        Row("CPU of a job at 1,000 over that at 200", _over(found, _ours(_MANY), _ours(_FEW)),
            "x", _MOST_GROWTH),
        Row("the same of the bare SDK calls", _over(found, _bare(_MANY), _bare(_FEW)), "x"),
        Row("CPU of a job over that of the bare SDK calls, at 1,000",
            _over(found, _ours(_MANY), _bare(_MANY)), "x", _MOST_OVER_BARE),
    ]  # fmt: skip


def _over(found: Mapping[str, Sequence[Figure]], one: str, other: str) -> float:
    pairs = zip(found[one], found[other], strict=True)
    return statistics.median(a.cpu_ms / b.cpu_ms for a, b in pairs)


def _cost(found: Mapping[str, Sequence[Figure]]) -> dict[str, list[tuple[float, float]]]:
    middle = medians(found)
    return {
        name: [(slots, middle[named(slots)].cpu_ms) for slots in (_FEW, _MANY)]
        for name, named in ((Afterword.name, _ours), (BARE_CALLS, _bare))
    }


if __name__ == "__main__":
    run_alone(section)
