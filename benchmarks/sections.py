"""Sections of the benchmarks: what each is told, and what it gives back."""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Told:
    """How much is to be measured: `jobs` are of one run of one design, `peers` is a Python."""

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
        """Return the goal in words, "" without one."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}"
        return "" if self.at_least is None else f"at least {self.at_least:g}"

    @property
    def met(self) -> bool:
        """Return whether the goal is met; a figure without one has no way to miss it."""
        return (self.at_most is None or self.value <= self.at_most) and (
            self.at_least is None or self.value >= self.at_least
        )


@dataclass(frozen=True)
class Finding:
    """What a section has found: `text` is Markdown, `plots` are SVG by name, `runs` is JSON.

    `failures` are what must not be, on however slow a machine: a lost job, never a missed goal.
    """

    rows: Sequence[Row] = ()
    text: str = ""
    plots: Mapping[str, str] = field(default_factory=dict)
    runs: Any = None
    failures: Sequence[str] = ()


#: Starts what it needs, measures, ends it; raises if a job is lost.
Section = Callable[[Told], Finding]


def finding_of(section: Section, told: Told) -> Finding:
    """Return what a section finds; one that breaks off does not hide what the others found."""
    try:
        return section(told)
    except Exception as error:  # noqa: BLE001 whatever it was, it is what was found
        traceback.print_exc()
        return Finding(failures=[repr(error)])


def options(parser: argparse.ArgumentParser) -> None:
    """Let a command line say what a section is told."""
    parser.add_argument("--rounds", type=int, default=Told.rounds)
    parser.add_argument("--jobs", type=int, default=Told.jobs, help="of one run of one design")
    parser.add_argument("--peers", metavar="PYTHON", help="has the group `bench-peers` installed")
    parser.add_argument("--designs", nargs="*", default=(), help="by name, beside ours")
    parser.add_argument("--deep", action="store_true", help="queue a million jobs as well")


def told(parsed: argparse.Namespace) -> Told:
    """Return what a command line said."""
    return Told(parsed.rounds, parsed.jobs, parsed.peers, tuple(parsed.designs), parsed.deep)
