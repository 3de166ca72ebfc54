"""The measures themselves: each of them can fail."""

from __future__ import annotations

import graphlib
from pathlib import Path
from textwrap import dedent

import pytest

from tests.shape.measure import Source, ambiguous_constants, import_graph, percentile, sources


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "top" / "made").mkdir(parents=True)
    return tmp_path


def written(root: Path, name: str, text: str) -> Source:
    path = root / "top" / "made" / f"{name}.py"
    path.write_text(dedent(text))
    return Source(path, root)


def test_length_leaves_out_the_docstring_and_nothing_else(root: Path) -> None:
    source = written(
        root,
        "long",
        '''
        def f():
            """One.

            Two.
            """
            # a comment
            x = 1

            return x
        ''',
    )
    assert [function.length for function in source.functions] == [5]


@pytest.mark.parametrize(
    ("body", "depth"),
    [
        ("pass", 0),
        ("if a: pass", 1),
        ("if a: pass\nelif b: pass\nelif c: pass", 1),
        ("if a: pass\nelif b:\n  with c: pass", 2),
        ("if a: pass\nelse:\n  for b in c: pass", 2),
        ("for a in b:\n  while c:\n    try: pass\n    except d:\n      if e: pass", 4),
        ("match a:\n  case b:\n    async def g():\n      if c: pass", 1),
        ("x = [a for a in b if c]", 0),
    ],
)
def test_nesting_counts_blocks(root: Path, body: str, depth: int) -> None:
    text = "async def f():\n" + "".join(f"    {line}\n" for line in body.splitlines())
    assert written(root, "nested", text).functions[0].nesting == depth


def test_lines_of_code_are_neither_blank_nor_prose(root: Path) -> None:
    source = written(
        root,
        "prose",
        '''
        """A module."""

        # why
        X = (
            1,
        )


        class C:
            """A class,

            explained.
            """
        ''',
    )
    assert source.code_lines == 4


def test_undocumented_public_names_are_listed(root: Path) -> None:
    source = written(
        root,
        "silent",
        '''
        class C:
            """Said."""
            def __len__(self): ...
            def _own(self): ...
            def told(self): ...
        class _Own:
            def told(self): ...
        ''',
    )
    assert source.undocumented == ["top/made/silent.py:1 made.silent", "top/made/silent.py:6 told"]


def test_missing_annotations_are_listed(root: Path) -> None:
    source = written(root, "bare", "def f(self, a, b: int, *c, d, **e): ...")
    assert source.functions[0].bare == ["a", "d", "c", "e", "return"]


@pytest.mark.parametrize(
    ("text", "is_alias"),
    [
        ("def f(a, b):\n    'Said.'\n    return g(a, b)", True),
        ("def f(a, b):\n    return g(b, a)", False),
        ("def f(a):\n    return g(a, b=1)", False),
        ("def f():\n    return g()", False),
        ("async def f(a):\n    return g(a)", False),
        ("def f(a):\n    return a.g(a)", False),
    ],
)
def test_a_function_that_only_calls_another_is_an_alias(
    root: Path, text: str, is_alias: bool
) -> None:
    assert written(root, "alias", text).functions[0].is_alias is is_alias


def test_a_constant_with_two_values_in_a_folder_is_ambiguous_once_it_is_imported(
    root: Path,
) -> None:
    files = [
        written(root, "one", "MOST = 1\nSAME = 3\n_OWN = 4"),
        written(root, "two", "MOST: int = 2\nSAME = 3\n_OWN = 5"),
    ]
    assert ambiguous_constants(files) == []
    user = written(root, "three", "from made.one import MOST, SAME, _OWN")
    assert ambiguous_constants([*files, user]) == ["MOST: made.one, made.two"]


def test_an_import_cycle_is_found_through_a_lazy_import(root: Path) -> None:
    files = [
        written(root, "one", "from made import two"),
        written(root, "two", "def f():\n    from made.one import x"),
    ]
    graph = import_graph(files)
    assert graph == {"made.one": {"made.two"}, "made.two": {"made.one"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(graph).prepare()


def test_a_package_is_imported_only_when_it_is_named(root: Path) -> None:
    files = [
        written(root, "__init__", "from made.one import x"),
        written(root, "one", "import made.two"),
        written(root, "two", "from made import x"),
    ]
    assert import_graph(files) == {
        "made": {"made.one"},
        "made.one": {"made.two"},
        "made.two": {"made"},
    }


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([1, 2, 3, 4], 50) == 2
    assert percentile(list(range(1, 101)), 95) == 95
    assert percentile([7], 95) == 7


def test_the_product_is_what_is_measured() -> None:
    assert {".".join(source.name.split(".")[:2]) for source in sources()} >= {
        "afterword.shared",
        "afterword.workers",
    }
