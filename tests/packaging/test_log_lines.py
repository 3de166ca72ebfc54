"""Every line that is logged as a warning, or worse, stands in the documents with its event."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

from afterword.shared.events import EVENTS
from afterword.shared.logs import LINES, Line
from tests.conftest import ROOT

LOUD = frozenset({"warning", "error", "critical", "exception", "log"})

#: What the embedded stack logs is of its parts, which are not ours.
ELSEWHERE = ROOT / "workers/afterword/workers/local_stack"


def lines_of(source: str) -> Iterator[str]:
    """Yield what a module logs loudly without an event, with `...` for what varies."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name("logger"), attr=how)) if how in LOUD:
                said = node.args[how == "log"]
                assert isinstance(said, ast.Constant), f"line {node.lineno}: a text of its own"
                yield re.sub(r"%[-.\d]*[a-z]", "...", str(said.value))


def modules() -> list[Path]:
    found = [path for folder in ("producer", "shared", "workers") for path in
             (ROOT / folder).rglob("*.py")]  # fmt: skip
    return [path for path in found if not path.is_relative_to(ELSEWHERE)]


def rows() -> list[tuple[str, str, str]]:
    """Return level, line and event of each row of the page."""
    text = (ROOT / "docs/reference/log-lines.md").read_text()
    return re.findall(r"^\| ([a-z, ]+) \| `(.+?)` \| (\w*) ?\|", text, re.MULTILINE)


def row_of(kind: type, line: Line) -> tuple[str, str]:
    return re.sub(r"\{.*?\}", "...", line.text), kind.__name__


def test_every_loud_line_is_documented_once_and_no_other() -> None:
    of_events = [row_of(kind, line) for kind, line in LINES.items() if is_loud(line)]
    without = [(line, "") for path in modules() for line in lines_of(path.read_text())]
    assert sorted(row[1:] for row in rows()) == sorted(of_events + without)


def is_loud(line: Line) -> bool:
    """Return whether a line can be a warning or worse; one that varies has a level it names."""
    return any(level >= logging.WARNING for level in line.levels)


def test_the_page_names_the_right_levels() -> None:
    levels = {kind.__name__: loud(line) for kind, line in LINES.items()}
    wrong = [e for named, _, e in rows() if e and set(named.split(", ")) != levels[e]]
    assert not wrong


def loud(line: Line) -> set[str]:
    return {level_name(one) for one in line.levels if one >= logging.WARNING}


def level_name(level: int) -> str:
    return logging.getLevelName(level).lower()


def test_every_event_has_a_line_whose_fields_it_has() -> None:
    assert set(LINES) == set(EVENTS)
    for kind, line in LINES.items():
        named = set(re.findall(r"\{(\w+)", line.text))
        assert named <= set(kind.__dataclass_fields__), kind.__name__


def test_a_new_line_would_be_seen() -> None:
    source = 'logger.log(level, "gate %s: %.1f s", name, s)\nlogger.info("fine")'
    assert list(lines_of(source)) == ["gate ...: ... s"]
