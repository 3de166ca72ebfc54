"""The sections of the benchmarks: their options, and what they return."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Options:
    """How much to measure.

    Each design does `jobs` jobs in each of `rounds` rounds. `peers` is the Python of an environment
    with the other engines, `designs` the names of those to compare with (empty: all), `deep` adds
    the runs with a million queued jobs.
    """

    rounds: int = 5
    jobs: int = 1000
    peers: str | None = None
    designs: Sequence[str] = ()
    deep: bool = False


@dataclass(frozen=True)
class Row:
    """One figure beside its goal, if it has one."""

    figure: str
    value: float
    unit: str = ""
    at_most: float | None = None
    at_least: float | None = None

    @property
    def goal(self) -> str:
        """Return the goal as text, empty without one."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"

    @property
    def met(self) -> bool:
        """Return whether the goal is met, if there is one."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


@dataclass(frozen=True)
class Finding:
    """The result of a section: `text` is Markdown, `plots` are SVG by name, `runs` is JSON.

    `failures` are what no machine excuses, such as a lost job; a missed goal is none.
    """

    rows: Sequence[Row] = ()
    text: str = ""
    plots: Mapping[str, str] = field(default_factory=dict)
    runs: Any = None
    failures: Sequence[str] = ()


#: Starts what it needs, measures and stops it; raises if a job is lost.
Section = Callable[[Options], Finding]


def run_section(section: Section, options: Options) -> Finding:
    """Run a section; an exception becomes a failure, so that the other sections still run."""
    try:
        return section(options)
    except Exception as error:  # noqa: BLE001 the report shows it
        traceback.print_exc()
        return Finding(failures=[repr(error)])


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of sections to a command line."""
    parser.add_argument(
        "--rounds",
        type=int,
        default=Options.rounds,
        metavar="N",
        help="how often each design is measured (default: %(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=Options.jobs,
        metavar="N",
        help="jobs of one design in one round (default: %(default)s)",
    )
    parser.add_argument(
        "--peers",
        metavar="PYTHON",
        help="also measure the engines installed for this Python (group bench-peers)",
    )
    parser.add_argument(
        "--designs",
        nargs="*",
        default=(),
        metavar="NAME",
        help="compare with these designs only (default: all)",
    )
    parser.add_argument(
        "--deep", action="store_true", help="also measure with a million queued jobs"
    )


def parse_options(parsed: argparse.Namespace) -> Options:
    """Return the options of a parsed command line."""
    return Options(parsed.rounds, parsed.jobs, parsed.peers, tuple(parsed.designs), parsed.deep)
