"""`python -m benchmarks`: whole jobs through one worker, beside other designs, in one run.

Each design has one core to itself; Redis, the stand-in of Claude and mem0, and who submits have
another. Designs take turns, so that a machine that grows slower is slower for all. Jobs are queued
before their clock starts. CPU is the kernel's own accounting of all processes of a design. Every
run checks that each job sent was answered once and its turn recorded once.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import guard
from benchmarks.contest import contest
from benchmarks.designs import Afterword, Design, local, others
from benchmarks.embedded import embedded
from benchmarks.figures import Found, as_json, chart, medians, rates, ratios, table
from benchmarks.peers.jobs import IN_FLIGHT, STREAMED
from benchmarks.stage import Stage
from benchmarks.submits import submits

_FREE_DATABASE = 20
_BUSY = 0.9


def _designs(stage: Stage, peers: str | None, only: Sequence[str]) -> list[Design]:
    designs = local(stage) + (others(stage, peers) if peers else [])
    chosen = [one for one in designs if not only or one.name == Afterword.name or one.name in only]
    for left_out in designs:
        if left_out not in chosen:
            left_out.crew.end()
    return chosen


def _start(stage: Stage) -> dict[str, float]:
    """Return how long a response worker takes to be ready, and its memory then."""
    alone = Afterword(stage, _FREE_DATABASE + 1)
    ready_s = alone.crew.ready_s()
    memory_mib = alone.crew.memory_mib
    alone.crew.end()
    return {"ready, s": ready_s, "memory before the first job, MiB": memory_mib}


def _said(found: Found) -> str:
    """Return what has to be known of a run."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    how = "streamed" if STREAMED else "not streamed"
    lines = [
        (
            f"Python {platform.python_version()}, {os.cpu_count()} cores, load at the end {load}; "
            f"{IN_FLIGHT} jobs in flight, answers {how}, no time to answer; medians of "
            f"{len(found[Afterword.name])} runs (smallest to largest); the two right columns are "
            "medians of ratios, run by run."
        )
    ]
    for name, figure in medians(found).items():
        if figure.other_core > _BUSY:
            lines.append(f"\n{name}: the other core was {figure.other_core:.0%} busy: too slow.")
    return "".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Measure, print, keep in a folder; return 1 if a step of the hot path has grown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1000, help="of one run of one design")
    parser.add_argument("--peers", metavar="PYTHON", help="has the group `bench-peers` installed")
    parser.add_argument("--only", nargs="*", default=(), help="designs, by name, beside ours")
    parser.add_argument("--embedded", action="store_true", help="the embedded memory as well")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    told = parser.parse_args(arguments)

    with Stage() as stage:
        start = _start(stage)
        submitted = submits(stage, told.rounds, told.jobs * 5, _FREE_DATABASE)
        found, left_out = contest(_designs(stage, told.peers, told.only), told.rounds, told.jobs)
    calls = guard.measure()
    worse = guard.check(calls)
    more = embedded(told.jobs // 4) if told.embedded else {}
    single = [f"- {name}: {value:.1f}" for name, value in (start | more).items()]
    steps = [f"- calls of `{step}`: {count}" for step, count in calls.items()]
    assert Afterword.name in found, left_out[Afterword.name]
    parts = [
        _said(found),
        "\n".join(f"Left out: {name}: {why}" for name, why in left_out.items()),
        table(found, Afterword.name),
        rates(submitted),
        "\n".join(single + steps),
    ]
    report = "\n\n".join(filter(None, parts)) + "\n"
    print(report)
    _keep(told.out, report, found, {"submits": submitted, "single": start | more, "calls": calls})
    guard.keep(calls, ratios=ratios(found, Afterword.name))
    for step in worse:
        print(f"`{step}` calls a tenth more functions than in the last entry of {guard.HISTORY}")
    return 1 if worse else 0


def _keep(folder: Path, report: str, found: Found, more: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "latest.md").write_text(
        f"# The last run\n\n{report}\n![CPU of one job](latest.svg)\n"
    )
    (folder / "latest.json").write_text(json.dumps({"runs": as_json(found)} | more, indent=2))
    (folder / "latest.svg").write_text(chart(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
