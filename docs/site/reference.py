"""`python docs/site/reference.py`: write the generated parts of the documents anew.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. A test compares each
with the code, so that none is forgotten.
"""

from __future__ import annotations

import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from prometheus_client import CollectorRegistry

from afterword.producer.admin.fleet_metrics import FleetCollector, FleetState
from afterword.producer.admin.fleet_status import summary
from afterword.producer.cli.main import cli
from afterword.shared import events as event_classes
from afterword.shared.clock import utc_now
from afterword.shared.errors import Fault
from afterword.shared.ledger.account import total
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder
from afterword.shared.ledger.records import Gate, GateState, Overview
from afterword.shared.ledger.tenants import whole
from afterword.shared.logs import LINES
from afterword.shared.settings import table as settings
from afterword.workers.metrics import counting, describe_worker

DOCS = Path(__file__).parents[1]
TESTS = DOCS.parent / "tests"

#: How wide the help of a command is printed.
WIDTH = 90

_FINDING = re.compile(r"mark\.finding\((\d+)\)")


def commands() -> str:
    """Return every command with its help, under a heading each."""
    sections = (f"## {name}\n\n```text\n{text}\n```" for name, text in _helps(cli, "afterword"))
    return "\n\n".join(sections)


def _helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the help of a command, then of all under it."""
    context = click.Context(
        command,
        info_name=name,
        terminal_width=WIDTH,
        max_content_width=WIDTH,
        help_option_names=["-h", "--help"],
    )
    yield name, command.get_help(context)
    if isinstance(command, click.Group):
        for step, inner in sorted(command.commands.items()):
            yield from _helps(inner, f"{name} {step}")


def events() -> str:
    """Return every event in tables, one for each part of the module that defines them."""
    source = inspect.getsource(event_classes)
    parts = re.findall(
        r"^# (\w.*)$|^class (\w+)\((?:ObserverEvent|TokensTold)\)", source, re.MULTILINE
    )
    lines: list[str] = []
    for heading, name in parts:
        if heading:
            lines += [
                "",
                f"## {heading}",
                "",
                "| event | when | fields | level |",
                "|---|---|---|---|",
            ]
        else:
            lines.append(_event_row(getattr(event_classes, name)))
    return "\n".join(lines).strip()


def _event_row(kind: type[event_classes.ObserverEvent]) -> str:
    when = " ".join((inspect.getdoc(kind) or "").split())
    named = ", ".join(f"`{one.name}`" for one in fields(kind))
    levels = ", ".join(logging.getLevelName(one).lower() for one in LINES[kind].levels)
    return f"| `{kind.__name__}` | {when} | {named} | {levels} |"


def findings() -> str:
    """Return a table of the tests by the number of the fault that each would have found."""
    named: dict[int, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for number in sorted({int(found) for found in _FINDING.findall(path.read_text())}):
            named.setdefault(number, []).append(f"`{path.relative_to(DOCS.parent)}`")
    rows = (f"| {number} | {', '.join(named[number])} |" for number in sorted(named))
    return "\n".join(["| | tests |", "|---|---|", *rows])


def worker_metrics() -> str:
    """Return a table of what workers serve."""
    registry = CollectorRegistry()
    with counting(registry):
        describe_worker(registry, "")
        instruments: list[Any] = list(registry._collector_to_names)  # noqa: SLF001
    return _metrics_table(  # a family without samples does not say which labels it has
        (family.name, family.type, instrument._labelnames, family.documentation)  # noqa: SLF001
        for instrument in instruments
        for family in instrument.collect()
    )


def fleet_metrics() -> str:
    """Return a table of what `afterword metrics` gives of a fleet."""
    now = utc_now()
    empty = Overview(now, 0, 0, 0, 0, workers=(), counts={}, agendas=())
    gate = Gate("recall", GateState.SHUT, "overloaded", Fault.PROVIDER, now, None)
    order = SteeringOrder(OrderKind.PAUSE_REPLIES, "olga@ops", now, None)
    lists = {"gates": [gate], "orders": [order]}
    batches = {"batches": 0, "turns": 0, "oldest_s": 0.0, "undeleted": 0}
    counts = {"quarantined": {"not_a_hint": 1}, "message_batches": batches}
    status = summary([empty]) | counts | lists
    collector = FleetCollector()
    collector.state = FleetState(status, total([]), 300.0, (), whole([]), [])
    return _metrics_table(
        (one.name, one.type, sorted({name for row in one.samples for name in row.labels}),
         one.documentation)
        for one in collector.collect()
    )  # fmt: skip


def _metrics_table(rows: Iterable[tuple[str, str, Iterable[str], str]]) -> str:
    lines = ["| name | type | labels | what |", "|---|---|---|---|"]
    for name, kind, labels, text in rows:
        shown = f"{name}_total" if kind == "counter" else name
        lines.append(f"| `{shown}` | {kind} | {', '.join(f'`{one}`' for one in labels)} | {text} |")
    return "\n".join(lines)


#: What is generated, by its name.
PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "events": events,
    "findings": findings,
    "fleet metrics": fleet_metrics,
    "settings": settings,
    "worker metrics": worker_metrics,
}

_PART = re.compile(rf"(<!-- generated: ({'|'.join(PARTS)}) -->\n).*?(<!-- end -->)", re.DOTALL)


def current(text: str) -> str:
    """Return a page with its generated parts made anew."""
    return _PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", text)


def pages() -> list[Path]:
    """Return the pages that have generated parts."""
    return [path for path in sorted(DOCS.rglob("*.md")) if _PART.search(path.read_text())]


if __name__ == "__main__":
    for page in pages():
        page.write_text(current(page.read_text()))
