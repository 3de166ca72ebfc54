"""The code in our Markdown, and what a document is when it is run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

#: Languages of blocks that are run, and of those that only show something. No other may be used:
#: a block in `bash` would go untested without anyone noticing.
RUN = ("console", "python", "sh")
SHOWN = ("dockerfile", "ini", "json", "lua", "mermaid", "text", "toml", "yaml")

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\S*) *$")
_EXCUSE = re.compile(r"^ *<!-- not run: (?P<reason>\S.*\S) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is its first line, `excuse` says why it is not run."""

    path: Path
    line: int
    language: str
    text: str
    excuse: str | None

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def runs(self) -> bool:
        return self.language in RUN and self.excuse is None


def blocks(path: Path) -> Iterator[Block]:
    """Yield the blocks of a document."""
    lines = path.read_text().splitlines()
    opened: tuple[int, str] | None = None
    for number, line in enumerate(lines, start=1):
        if not (fence := _FENCE.match(line)):
            continue
        if opened is None:
            opened = number + 1, fence["language"]
            continue
        first, language = opened
        text = dedent("\n".join(lines[first - 1 : number - 1]))
        yield Block(path, first, language, text, _excuse(lines[: first - 2]))
        opened = None
    assert opened is None, f"{path.name}:{opened[0]}: this block has no end"


def _excuse(before: list[str]) -> str | None:
    """Return the excuse right above a block; one empty line may stand between."""
    above = next((line for line in before[:-3:-1] if line.strip()), "")
    found = _EXCUSE.match(above)
    return found["reason"] if found else None


def program(path: Path) -> str:
    """Return the Python of a document as one program with the document's own line numbers."""
    lines = [""] * len(path.read_text().splitlines())
    for block in blocks(path):
        if block.runs and block.language == "python":
            text = block.text.splitlines()
            lines[block.line - 1 : block.line - 1 + len(text)] = text
    return "\n".join(lines).rstrip()


def examples(path: Path) -> dict[str, Any]:
    """Return what the JSON of a document shows, by the heading of its section."""
    lines = path.read_text().splitlines()
    shown: dict[str, Any] = {}
    for block in (one for one in blocks(path) if one.language == "json"):
        heading = next(line for line in lines[block.line :: -1] if line.startswith("## "))
        assert heading not in shown, f"{block}: {heading} shows two examples"
        shown[heading.removeprefix("## ")] = json.loads(block.text)
    return shown


def session(block: Block) -> list[tuple[str, str]]:
    """Return the commands of a `console` block, each with the output that it shows."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0].strip(), f"{block}: a console block begins with `$ `"
    pairs = (part.partition("\n") for part in parts[1:])
    return [(command, shown.strip()) for command, _, shown in pairs]
