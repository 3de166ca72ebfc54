"""Every line that a worker may log as a warning, or worse, stands in the documents."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import ROOT

LOUD = frozenset({"warning", "error", "critical", "exception", "log"})

#: What the embedded stack logs is of its parts, which are not ours.
ELSEWHERE = ROOT / "workers/afterword/workers/local_stack"


def lines_of(source: str) -> Iterator[str]:
    """Yield what a module logs loudly, with `...` for what varies."""
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


def documented() -> list[str]:
    text = (ROOT / "docs/reference/log-lines.md").read_text()
    rows = re.findall(r"^\| [a-z, ]+ \| (`.+?`) \|", text, re.MULTILINE)
    return [line for row in rows for line in re.findall(r"`([^`]+)`", row)]


def test_every_loud_line_is_documented_once_and_no_other() -> None:
    logged = {line for path in modules() for line in lines_of(path.read_text())}
    assert sorted(documented()) == sorted(logged)


def test_a_new_line_would_be_seen() -> None:
    source = 'logger.log(level, "gate %s: %.1f s", name, s)\nlogger.info("fine")'
    assert list(lines_of(source)) == ["gate ...: ... s"]
