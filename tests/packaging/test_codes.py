"""The reference lists every code that a failure can have, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from afterword.shared.transport.causes import MISCONFIGURED_WORDS, WORDS
from tests.conftest import ROOT
from tests.kit.claude_api.failure_cases import FAILURES

ERRORS = {"AccessDenied", "BadAnswer", "NoSuchModel", "RateLimited", "Rejected", "Unavailable"}

WORKERS = ROOT / "workers/afterword/workers"
SOURCES = [
    path
    for folder in ("shared", "workers")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in {".py", ".lua"}
]

#: What stands for many codes.
PATTERNS = {"http_4xx", "unexpected_…"}


def codes_of(source: str) -> Iterator[str]:
    """Yield the codes of the errors that a module makes, and those in its tables of errors."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(name), args=[ast.Constant(str(code)), *_]) if (
                name in ERRORS
            ):
                yield code
            case ast.Tuple(elts=[ast.Name(name), ast.Constant(str(code))]) if name in ERRORS:
                yield code


def listed() -> list[str]:
    page = (ROOT / "docs/reference/codes.md").read_text()
    cells = re.findall(r"^\| (`.+?`) \|", page, re.MULTILINE)
    found = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell)]
    return [code for code in found if code != "turn_code"]


def test_every_code_is_listed_once() -> None:
    made = {code for path in WORKERS.rglob("*.py") for code in codes_of(path.read_text())}
    made |= {row.code for row in FAILURES if not row.code.startswith("http_")}
    assert sorted(made - set(listed())) == []
    assert len(listed()) == len(set(listed()))


def test_codes_in_examples_are_listed() -> None:
    pages = [*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.py")]
    wanted = re.compile(
        r"""--code ([a-z]\w*)|\bcode="(\w+)"|"code": "(\w+)"|FakeFailure\("(\w+)"\)"""
    )
    named = {
        (path.name, code)
        for path in pages
        for groups in wanted.findall(path.read_text())
        for code in filter(None, groups)
    }
    assert sorted(one for one in named if one[1] not in listed()) == []
    assert {name for name, _ in named} >= {"replay.md", "testing-your-code.md", "json.md"}


def test_every_listed_code_is_in_the_code() -> None:
    source = "".join(path.read_text() for path in SOURCES)
    quoted = set(re.findall(r"[\"'](\w+)[\"']", source))
    assert [code for code in listed() if code not in quoted | PATTERNS] == []


def test_a_new_code_would_be_seen() -> None:
    source = 'raise Rejected("new", unknown_outcome=True)\nTABLE = {1: (Unavailable, "newer")}'
    assert list(codes_of(source)) == ["new", "newer"]


@pytest.mark.parametrize(
    ("heading", "words"),
    [("Why Redis is unavailable", WORDS), ("Why a Redis cannot be used", MISCONFIGURED_WORDS)],
)
def test_every_cause_is_listed(heading: str, words: dict[str, str]) -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    section = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", section, re.MULTILINE)) == words
