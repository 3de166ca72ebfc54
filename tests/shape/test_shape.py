"""The shape of the source: short functions, flat code, small files, no knots."""

from __future__ import annotations

import graphlib

from tests.shape.measure import ambiguous_constants, import_graph, percentile, sources

FILES = sources()
FUNCTIONS = [function for source in FILES for function in source.functions]


def none(offenders: list[str]) -> None:
    """Fail naming every offender: the editor jumps there."""
    assert not offenders, "\n" + "\n".join(offenders)


def test_every_function_fits_on_a_screen() -> None:
    none([f"{f.where}: {f.length} lines" for f in FUNCTIONS if f.length > 45])


def test_nearly_every_function_is_short() -> None:
    long = sorted(FUNCTIONS, key=lambda f: -f.length)[: len(FUNCTIONS) // 20]
    longest = "\n".join(f"{f.where}: {f.length} lines" for f in long)
    assert percentile([f.length for f in FUNCTIONS], 95) <= 28, longest


def test_half_of_the_functions_are_tiny() -> None:
    assert percentile([f.length for f in FUNCTIONS], 50) <= 7


def test_nothing_is_nested_deeper_than_three() -> None:
    none([f"{f.where}: {f.nesting} deep" for f in FUNCTIONS if f.nesting > 3])


def test_every_file_is_small() -> None:
    none([f"{s.name}: {s.code_lines} lines of code" for s in FILES if s.code_lines > 400])


def test_everything_public_is_documented() -> None:
    none([name for source in FILES for name in source.undocumented])


def test_every_argument_and_return_is_annotated() -> None:
    none([f"{f.where}: {', '.join(f.bare)}" for f in FUNCTIONS if f.bare])


def test_no_function_is_only_another_name_of_one() -> None:
    none([f.where for f in FUNCTIONS if f.is_alias])


def test_a_constant_that_is_imported_has_one_value_in_its_folder() -> None:
    none(ambiguous_constants(FILES))


def test_no_module_imports_itself_through_others() -> None:
    # Lazy imports count: hiding a cycle in a function does not untie it.
    graphlib.TopologicalSorter(import_graph(FILES)).prepare()
