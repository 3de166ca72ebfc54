"""Measure Afterword: CPU, rates, latencies and memory, each figure beside its goal.

The measured process has one core to itself. Redis, the stand-in of Claude and mem0 and the
submitter share another core. CPU is what the kernel accounts to a process. Each run checks that
every job was answered once and its turn recorded once.
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
    longest_script,
    memory_lane,
    observer,
    offline_model,
    selfhosted,
    start,
    submits,
    two_cores,
    waiting,
    whole_jobs,
)
from benchmarks.report import to_markdown, update_report
from benchmarks.sections import Section, add_options, parse_options, run_section

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
    "scripts": longest_script.section,
    "start": start.section,
    "calls": guard.section,
    "embedded": embedded.section,
    "observer": observer.section,
    "offline model": offline_model.section,
}

_EPILOG = """\
sections, each with its module:
"""


def main(arguments: Sequence[str]) -> int:
    """Measure sections, print them and update the report; return 1 if a section failed.

    A section fails if a job is lost or a step of the hot path has grown, not if it misses a goal.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_EPILOG + "\n".join(_described(name) for name in SECTIONS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        nargs="*",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="SECTION",
        help="measure only these sections, listed below; the report keeps the others",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("docs/benchmarks"),
        metavar="FOLDER",
        help="folder of the report (default: %(default)s)",
    )
    add_options(parser)
    parsed = parser.parse_args(arguments)
    failed = False
    for name in parsed.only:
        finding = run_section(SECTIONS[name], parse_options(parsed))
        print(to_markdown(name, finding), flush=True)
        update_report(parsed.out, {name: finding}, SECTIONS)
        failed |= bool(finding.failures)
    return int(failed)


def _described(name: str) -> str:
    """Return a line of the help for a section: the first line of its module's docstring."""
    section = SECTIONS[name]
    summary = (sys.modules[section.__module__].__doc__ or "").partition("\n")[0]
    return f"  {name:<13}{section.__module__.rpartition('.')[2]:<13}{summary}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
