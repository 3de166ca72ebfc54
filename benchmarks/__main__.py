"""`python -m benchmarks`: every section, each figure beside its goal, in one report.

Who is measured has one core to itself; Redis, the stand-in of Claude and mem0, and who submits
have another. CPU is the kernel's own accounting. Every run checks that each job sent was answered
once and its turn recorded once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import (
    embedded,
    fan_out,
    growth,
    guard,
    in_flight,
    latency,
    memory_lane,
    observer,
    selfhosted,
    start,
    submits,
    two_cores,
    waiting,
    whole_jobs,
)
from benchmarks.report import keep, shown
from benchmarks.sections import Section, finding_of, options, told

#: In the order of the report.
SECTIONS: Mapping[str, Section] = {
    "whole jobs": whole_jobs.section,
    "in flight": in_flight.section,
    "latency": latency.section,
    "submits": submits.section,
    "waiting": waiting.section,
    "fan-out": fan_out.section,
    "growth": growth.section,
    "memory lane": memory_lane.section,
    "self-hosted": selfhosted.section,
    "two cores": two_cores.section,
    "start": start.section,
    "calls": guard.section,
    "embedded": embedded.section,
    "observer": observer.section,
}


def main(arguments: Sequence[str]) -> int:
    """Measure, print, keep; return 1 if a job was lost or a step of the hot path has grown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks"))
    options(parser)
    parsed = parser.parse_args(arguments)
    failed = False
    for name in parsed.only:
        finding = finding_of(SECTIONS[name], told(parsed))
        print(shown(name, finding), flush=True)
        keep(parsed.out, {name: finding}, SECTIONS)
        failed |= bool(finding.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
