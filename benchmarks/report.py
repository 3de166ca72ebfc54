"""The report of the benchmarks: the last run of each section, as Markdown, JSON and SVG."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.sections import Finding, Row


def goals(rows: Sequence[Row]) -> str:
    """Return a Markdown table of figures and their goals."""
    lines = [
        f"| {row.figure} | {row.value:.4g} {row.unit} | {row.goal} "
        f"| {('met' if row.met else '**missed**') if row.goal else ''} |"
        for row in rows
    ]
    return "\n".join(["| figure | found | goal | |", "|---|---|---|---|", *lines])


def to_markdown(name: str, finding: Finding) -> str:
    """Return a section as Markdown, without its plots."""
    parts = [
        f"## {name}",
        finding.text,
        goals(finding.rows) if finding.rows else "",
        "\n".join(f"**Failed**: {failure}" for failure in finding.failures),
    ]
    return "\n\n".join(filter(None, parts))


def machine() -> str:
    """Return what a reader has to know of the machine."""
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, load at the end {load}."


def update_report(folder: Path, found: Mapping[str, Finding], order: Iterable[str]) -> None:
    """Replace these sections in the report; `order` is that of all sections."""
    folder.mkdir(parents=True, exist_ok=True)
    for finding in found.values():
        for name, plot in finding.plots.items():
            (folder / f"{name}.svg").write_text(plot)
    kept = _kept(folder) | {name: _entry(name, finding) for name, finding in found.items()}
    kept = {name: kept[name] for name in order if name in kept}
    (folder / "latest.json").write_text(json.dumps({"sections": kept}, indent=2) + "\n")
    text = "\n\n".join(_section(entry) for entry in kept.values())
    (folder / "latest.md").write_text(f"# The last run of each section\n\n{text}\n")


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / "latest.json"
    sections = json.loads(path.read_text()).get("sections", {}) if path.exists() else {}
    return dict(sections)


def _entry(name: str, finding: Finding) -> dict[str, Any]:
    return {
        "machine": machine(),
        "markdown": to_markdown(name, finding),
        "rows": [asdict(row) for row in finding.rows],
        "plots": list(finding.plots),
        "runs": finding.runs,
    }


def _section(entry: Mapping[str, Any]) -> str:
    plots = [f"![{name}]({name}.svg)" for name in entry["plots"]]
    return "\n\n".join([entry["markdown"], *plots, entry["machine"]])
