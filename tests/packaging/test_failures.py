"""The page of failures is what its rows say, and each row has a test."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from tests.conftest import ROOT
from tests.kit.failures.page import PAGE, ROWS, TABLES, current
from tests.kit.failures.row import FailureRow


def test_the_tables_of_the_page_are_current() -> None:
    assert PAGE.read_text() == current(PAGE.read_text()), "run: make reference"


def test_every_table_is_in_the_page() -> None:
    page = PAGE.read_text()
    assert [name for name in TABLES if f"<!-- generated: {name} -->" not in page] == []


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_test(name: str) -> None:
    assert [row.what for row in ROWS[name][1] if not has_test(row)] == []


def test_a_row_without_a_test_would_be_seen() -> None:
    _, rows = ROWS["claude"]
    path, _, _ = rows[0].test.partition("::")
    assert has_test(rows[0])
    assert "test_nothing" not in names_in(path)


def has_test(row: FailureRow) -> bool:
    path, _, name = row.test.partition("::")
    return name in names_in(path)


@cache
def names_in(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    return frozenset(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name[:5] == "test_"
    )
