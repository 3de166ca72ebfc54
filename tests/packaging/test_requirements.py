"""What the product imports is what it asks for, each part from its own list."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.shape.measure import Source, sources

OURS = {"afterword"}
#: Parts of the workers that are imported only if the settings ask for them.
LAZY = (
    "afterword.workers.local_stack",
    "afterword.workers.adapters.mem0.sqlite",
    "afterword.workers.adapters.mem0.pgvector",
)


def asked_for(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    return {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}


def imported(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize(
    ("part", "extras"),
    [
        ("afterword.producer", ()),
        ("afterword.shared", ()),
        ("afterword.workers", ("workers",)),
        ("afterword.workers.local_stack", ("workers", "embedded")),
        ("afterword.workers.adapters.mem0.sqlite", ("workers", "embedded")),
        ("afterword.workers.adapters.mem0.pgvector", ("workers", "selfhosted")),
    ],
)
def test_each_part_asks_for_what_it_imports(part: str, extras: tuple[str, ...]) -> None:
    owners = packages_distributions()
    strangers = {
        (source.name, name)
        for source in sources()
        if source.name.startswith(part)
        and (part != "afterword.workers" or not source.name.startswith(LAZY))
        for name in set(imported(source)) - OURS - sys.stdlib_module_names
        if not {canonicalize_name(owner) for owner in owners.get(name, [])} & asked_for(*extras)
    }
    assert strangers == set()
