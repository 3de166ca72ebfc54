"""Measurements of designs, and the tables that compare them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One run of one design: jobs per second, CPU per job, memory.

    `other_core` is the share of a core that Redis and the stand-in used meanwhile.
    """

    per_second: float
    cpu_ms: float = 0.0
    memory_mib: float = 0.0
    other_core: float = 0.0


Found = Mapping[str, Sequence[Figure]]


def medians(found: Found) -> dict[str, Figure]:
    """Return the median of each figure of each design."""
    return {
        name: Figure(*(statistics.median(column) for column in _columns(figures)))
        for name, figures in found.items()
    }


def ratios(found: Found, ours: str) -> dict[str, dict[str, float]]:
    """Return, for each other design, the median over runs of our figure divided by its."""
    return {
        name: {
            "cpu": _ratio(found[ours], figures, lambda one: one.cpu_ms),
            "per_second": _ratio(found[ours], figures, lambda one: one.per_second),
        }
        for name, figures in found.items()
        if name != ours
    }


def table(found: Found, ours: str) -> str:
    """Return a Markdown table of medians, with the smallest and the largest in brackets."""
    rows = [
        "| design | jobs a second | CPU, ms a job | memory, MiB | ours: rate | ours: CPU |",
        "|---|---|---|---|---|---|",
    ]
    against = ratios(found, ours)
    for name, figures in sorted(found.items(), key=lambda one: -medians(found)[one[0]].per_second):
        rate, cpu, memory, _ = _columns(figures)
        ratio = against.get(name)
        shown = f"{ratio['per_second']:.2f} x | {ratio['cpu']:.2f} x" if ratio else " | "
        rows.append(
            f"| {name} | {_spread(rate, '{:.0f}')} | {_spread(cpu, '{:.2f}')} "
            f"| {statistics.median(memory):.0f} | {shown} |"
        )
    return "\n".join(rows)


def rates(found: Mapping[str, Sequence[float]]) -> str:
    """Return a Markdown table of rates."""
    rows = [f"| {name} | {_spread(values, '{:.0f}')} |" for name, values in found.items()]
    return "\n".join(["| submit | a second |", "|---|---|", *rows])


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` % of the values do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def as_json(found: Found) -> dict[str, Any]:
    """Return every run, as JSON."""
    return {name: [asdict(one) for one in figures] for name, figures in found.items()}


def _columns(figures: Sequence[Figure]) -> list[list[float]]:
    rows = [(one.per_second, one.cpu_ms, one.memory_mib, one.other_core) for one in figures]
    return [list(column) for column in zip(*rows, strict=True)]


def _ratio(
    ours: Sequence[Figure], theirs: Sequence[Figure], value: Callable[[Figure], float]
) -> float:
    return statistics.median(value(a) / value(b) for a, b in zip(ours, theirs, strict=True))


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"
