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
#: What is imported only if a setting or an option asks for it.
LAZY = (
    "afterword.producer.web",
    "afterword.producer.admin.fleet_metrics",
    "afterword.producer.cli.metrics",
    "afterword.shared.metrics_server",
    "afterword.shared.traces",
    "afterword.workers.local_stack",
    "afterword.workers.adapters.mem0.sqlite",
    "afterword.workers.adapters.mem0.pgvector",
)


def asked_for(*extras: str) -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lists = [project["dependencies"], *(project["optional-dependencies"][e] for e in extras)]
    requirements = [Requirement(line) for lines in lists for line in lines]
    own = {extra for one in requirements if one.name == "afterword" for extra in one.extras}
    included = asked_for(*own) if own else set()
    return {canonicalize_name(one.name) for one in requirements} | included


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
        ("afterword.producer.admin.fleet_metrics", ("metrics",)),
        ("afterword.producer.cli.metrics", ("metrics",)),
        ("afterword.producer.web", ("console",)),
        ("afterword.shared", ()),
        ("afterword.shared.metrics_server", ("metrics",)),
        ("afterword.shared.traces", ("traces",)),
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
        if source.name.startswith(part) and (part in LAZY or not source.name.startswith(LAZY))
        for name in set(imported(source)) - OURS - sys.stdlib_module_names
        if not {canonicalize_name(owner) for owner in owners.get(name, [])} & asked_for(*extras)
    }
    assert strangers == set()
