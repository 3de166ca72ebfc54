"""What a benchmark found, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One run: how many a second, and the CPU of the measured process for each, in ms."""

    per_second: float
    cpu_ms: float


def markdown(found: Mapping[str, Sequence[Figure]]) -> str:
    """Return a table of medians, with the smallest and the largest in brackets."""
    rows = ["| design | per second | CPU, ms each |", "|---|---|---|"]
    for name, figures in found.items():
        rate = _spread([one.per_second for one in figures], "{:.0f}")
        cpu = _spread([one.cpu_ms for one in figures], "{:.2f}")
        rows.append(f"| {name} | {rate} | {cpu if figures[0].cpu_ms else ''} |")
    return "\n".join(rows)


def _spread(values: Sequence[float], form: str) -> str:
    middle, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
    return middle if len(values) == 1 else f"{middle} ({low} to {high})"
