"""What a benchmark found, and how it is shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One run of one design: jobs a second, CPU of one job, memory, how busy the other core was."""

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
    """Return how we compare: our figure over theirs, run by run, and of those the median."""
    return {
        name: {
            "cpu": _ratio(found[ours], figures, lambda one: one.cpu_ms),
            "per_second": _ratio(found[ours], figures, lambda one: one.per_second),
        }
        for name, figures in found.items()
        if name != ours
    }


def table(found: Found, ours: str) -> str:
    """Return medians as Markdown, with the smallest and the largest in brackets."""
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
    """Return a Markdown table of rates alone."""
    rows = [f"| {name} | {_spread(values, '{:.0f}')} |" for name, values in found.items()]
    return "\n".join(["| submit | a second |", "|---|---|", *rows])


def as_json(found: Found) -> dict[str, Any]:
    """Return every single run."""
    return {name: [asdict(one) for one in figures] for name, figures in found.items()}


def chart(found: Found) -> str:
    """Return the CPU of one job of each design as bars, in SVG."""
    bars = sorted(medians(found).items(), key=lambda one: one[1].cpu_ms)
    scale = 360 / max(figure.cpu_ms for _, figure in bars)
    rows = [
        f'<text x="190" y="{y + 15}" text-anchor="end">{escape(name)}</text>'
        f'<rect x="200" y="{y}" width="{figure.cpu_ms * scale:.0f}" height="20" fill="#4878a8"/>'
        f'<text x="{205 + figure.cpu_ms * scale:.0f}" y="{y + 15}">{figure.cpu_ms:.2f} ms</text>'
        for y, (name, figure) in zip(range(10, 10_000, 28), bars, strict=False)
    ]
    height = 20 + 28 * len(bars)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="660" height="{height}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="13">', *rows, "</svg>\n"])


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
