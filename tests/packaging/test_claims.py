"""What the documents say of the code is what the code says."""

from __future__ import annotations

import importlib
import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path

import pytest

from afterword import producer
from afterword.producer.cli.main import cli
from afterword.shared.environment import variable
from afterword.shared.settings import Settings
from docs.site import reference
from tests.conftest import ROOT, ROOTS
from tests.kit.ledger.transitions import JOB_STEPS, TURN_STEPS
from tests.packaging.blocks import blocks

DOCUMENTS = [*ROOT.glob("*.md"), *sorted(ROOT.glob("docs/**/*.md"))]
FOLDERS = ("benchmarks", "docs", "examples", "producer", "shared", "tests", "workers")

#: Commands that documents name to say that they are not there.
NOT_YET = frozenset({"gateway"})

#: The words that are ours: the glossary says what each is called elsewhere.
KEPT_WORDS = frozenset(
    {
        "job", "turn", "ledger", "lane", "hint", "claim", "lease", "fence", "recall", "overlay",
        "snooze", "retry", "bury", "replay", "sweep", "erase", "gate", "tenant",
    }
)  # fmt: skip

Steps = Mapping[StrEnum, tuple[Collection[StrEnum], Collection[StrEnum]]]


def words(path: Path) -> list[str]:
    """Return what a document sets as code, in its text and in its blocks."""
    return [*re.findall(r"`([^`\n]+)`", path.read_text()), *(b.text for b in blocks(path))]


def steps_in(section: str) -> dict[str, tuple[set[str], set[str]]]:
    """Read the table of steps in one section of the lifecycle: step, from, to, scripts."""
    text = (ROOT / "docs/explanation/lifecycle.md").read_text()
    (body,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| ([^|]+) \|", body, re.MULTILINE)
    return {step: (set(before.split(", ")), set(after.split(", "))) for step, before, after in rows}


@pytest.mark.parametrize(("section", "steps"), [("A job", JOB_STEPS), ("A turn", TURN_STEPS)])
def test_the_lifecycle_has_every_step(section: str, steps: Steps) -> None:
    real = {
        str(step): ({str(one) for one in before}, {str(one) for one in after})
        for step, (before, after) in steps.items()
    }
    assert steps_in(section) == real


@pytest.mark.parametrize("path", reference.pages(), ids=lambda path: path.name)
def test_the_generated_parts_of_the_reference_are_current(path: Path) -> None:
    assert path.read_text() == reference.current(path.read_text()), "run `make reference`"


def test_settings_commands_and_events_are_generated() -> None:
    assert {path.name for path in reference.pages()} >= {
        "command-line.md",
        "events.md",
        "settings.md",
    }


def test_each_fault_that_was_found_in_use_is_explained_and_has_its_tests() -> None:
    page = (ROOT / "docs/explanation/found-in-use.md").read_text()
    explained = re.findall(r"^\| (\d+) \| (?!`tests/)", page, re.MULTILINE)
    tested = re.findall(r"^\| (\d+) \| `tests/", page, re.MULTILINE)
    assert explained == tested == [str(number) for number in range(1, 37)]


def test_the_reference_has_every_public_name_once() -> None:
    pages = "".join(path.read_text() for path in (ROOT / "docs/reference").rglob("*.md"))
    shown = re.findall(r"^::: afterword\.producer\.(\w+)$", pages, re.MULTILINE)
    assert sorted(shown) == sorted(producer.__all__)


def test_every_setting_that_is_mentioned_exists() -> None:
    known = {variable(field) for field in Settings.model_fields}
    said = {(p.name, n) for p in DOCUMENTS for n in re.findall(r"AFTERWORD_\w+\b", p.read_text())}
    assert sorted((at, name) for at, name in said if name not in known) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_file_that_is_mentioned_exists(path: Path) -> None:
    linked = re.findall(r"\]\(([^)#:\s]+)[^):]*\)", path.read_text())
    named = [
        name
        for text in words(path)
        for name in re.findall(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/[\w./-]*\w", text)
    ]
    gone = [name for name in linked if not (path.parent / name).exists()]
    gone += [name for name in named if not (ROOT / name).exists()]
    assert gone == []


SPANS = "".join(
    (ROOT / f"shared/afterword/shared/{name}.py").read_text() for name in ("spans", "traces")
)


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module, something that one defines, or what spans say."""
    if f'"{name}"' in SPANS:
        return True
    steps = name.split(".")
    for last in range(len(steps), 0, -1):
        at = "/".join(steps[:last])
        if any((root / found).exists() for root in (ROOT, *ROOTS) for found in (at, f"{at}.py")):
            # A module by itself is not imported: that of the worker would want a Redis.
            return last == len(steps) or has(".".join(steps[:last]), steps[last:])
    return False


def has(module: str, path: list[str]) -> bool:
    """Tell whether a module defines what a path of names leads to."""
    value: object = importlib.import_module(module)
    for name in path:
        value = getattr(value, name, None)
    return value is not None


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_dotted_name_that_is_mentioned_exists(path: Path) -> None:
    dotted = r"(?<![\w./-])(?:afterword|benchmarks|tests)(?:\.[A-Za-z_]\w*)+"
    named = {name for text in words(path) for name in re.findall(dotted, text)}
    assert [name for name in sorted(named) if not exists(name)] == []


def test_the_glossary_has_every_word_and_each_is_linked_from_a_page() -> None:
    glossary = (ROOT / "docs/reference/glossary.md").read_text()
    ours = glossary.partition("## Other words")[0]
    words = re.findall(r'^\| <a id="([\w-]+)"></a>.* \| \S.* \| \S.* \|$', ours, re.MULTILINE)
    assert set(words) >= KEPT_WORDS
    pages = "".join(path.read_text() for path in DOCUMENTS)
    assert [word for word in words if f"glossary.md#{word})" not in pages] == []


def test_every_decision_is_listed_under_a_number_of_its_own() -> None:
    folder = ROOT / "docs/decisions"
    listed = re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text())
    assert listed == sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert len({name[:4] for name in listed}) == len(listed)


def test_every_command_that_is_mentioned_exists() -> None:
    said = [
        (path.name, name)
        for path in DOCUMENTS
        for text in words(path)
        for name in re.findall(r"^(?:.*[ /])?afterword ([a-z]+)\b", text, re.MULTILINE)
    ]
    assert said
    assert [(at, name) for at, name in said if name not in {*cli.commands, *NOT_YET}] == []


def test_no_command_that_is_said_to_be_missing_is_there() -> None:
    assert NOT_YET.isdisjoint(cli.commands)
