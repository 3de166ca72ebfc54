"""Measures of the source: its syntax trees are read, nothing of it is imported.

`python -m tests.shape.measure` prints them.
"""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).parents[2]
#: The folders that each contribute to the package `afterword`.
PACKAGES = ("producer", "workers", "shared")

Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_NO_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


@dataclass(frozen=True)
class Function:
    """One function or method; `where` is clickable."""

    where: str
    node: Definition

    @property
    def length(self) -> int:
        """Count the lines from `def` to the end, comments included, the docstring not."""
        return _last(self.node) - self.node.lineno + 1 - len(_docstring_lines(self.node))

    @property
    def nesting(self) -> int:
        """Count how many blocks the innermost statement stands in; `elif` opens none."""
        return max((_depth(statement) for statement in self.node.body), default=0)

    @property
    def bare(self) -> list[str]:
        """List the arguments, and `return`, that lack an annotation."""
        args = self.node.args
        named = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
        names = [arg.arg for arg in named if arg is not None and arg.annotation is None]
        if self.node.returns is None:
            names.append("return")
        return [name for name in names if name not in ("self", "cls")]

    @property
    def is_alias(self) -> bool:
        """Return whether all it does is to call another function with its own arguments."""
        if isinstance(self.node, ast.AsyncFunctionDef):
            return False
        match [one for one in self.node.body if not _is_text(one)]:
            case [ast.Return(ast.Call(ast.Name(), [*given], []))] if given:
                return [ast.unparse(one) for one in given] == [a.arg for a in self.node.args.args]
        return False


@dataclass(frozen=True)
class Source:
    """One file of the product."""

    path: Path
    root: Path = ROOT

    @cached_property
    def tree(self) -> ast.Module:
        """Parse the file."""
        return ast.parse(self.path.read_text(), self.path)

    @property
    def name(self) -> str:
        """Return the dotted name of the module."""
        _, *parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def code_lines(self) -> int:
        """Count the lines that hold code: no blanks, comments or docstrings."""
        prose = {line for node in ast.walk(self.tree) for line in _docstring_lines(node)}
        return len(set(_token_lines(self.path.read_text())) - prose)

    @property
    def functions(self) -> list[Function]:
        """List every function, nested ones too."""
        found = (node for node in ast.walk(self.tree) if isinstance(node, _DEFINITIONS))
        return [Function(f"{self._at(node)} {node.name}", node) for node in found]

    @property
    def undocumented(self) -> list[str]:
        """List what is public and has no docstring, the module included."""
        missing = [] if ast.get_docstring(self.tree) else [f"{self._at(None)} {self.name}"]
        public = (node for node in _public(self.tree) if not ast.get_docstring(node))
        return missing + [f"{self._at(node)} {node.name}" for node in public]

    @property
    def constants(self) -> dict[str, str]:
        """Return the public constants of the module, each with the text of its value."""
        assigned = (
            (target, node.value)
            for node in self.tree.body
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        )
        return {
            target.id: ast.unparse(value)
            for target, value in assigned
            if isinstance(target, ast.Name) and target.id.isupper() and target.id[0] != "_"
        }

    @property
    def imported_names(self) -> set[str]:
        """Return what the module imports by name."""
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.ImportFrom))
        return {alias.name for node in nodes for alias in node.names}

    def imports(self, known: Iterable[str]) -> set[str]:
        """Return which of the `known` modules this one imports, lazily or not."""
        named = {name for node in ast.walk(self.tree) for name in _imported(node, set(known))}
        return named - {self.name}

    def _at(self, node: Definition | ast.ClassDef | None) -> str:
        return f"{self.path.relative_to(self.root)}:{node.lineno if node else 1}"


def sources(root: Path = ROOT, packages: Iterable[str] = PACKAGES) -> list[Source]:
    """List the files of the product."""
    return [
        Source(path, root)
        for package in packages
        for path in sorted((root / package).rglob("*.py"))
    ]


def import_graph(files: Iterable[Source]) -> dict[str, set[str]]:
    """Return which module imports which, among `files`."""
    by_name = {source.name: source for source in files}
    return {name: source.imports(by_name) for name, source in by_name.items()}


def ambiguous_constants(files: Iterable[Source]) -> list[str]:
    """List the constants that are imported by name and have another value next door."""
    files = list(files)
    wanted = {name for source in files for name in source.imported_names}
    values: dict[tuple[Path, str], dict[str, str]] = {}
    for source in files:
        for name, value in source.constants.items():
            values.setdefault((source.path.parent, name), {})[source.name] = value
    return [
        f"{name}: {', '.join(sorted(found))}"
        for (_, name), found in values.items()
        if name in wanted and len(set(found.values())) > 1
    ]


def percentile(values: list[int], percent: int) -> float:
    """Return the value that `percent` % of `values` do not exceed."""
    return sorted(values)[-(-len(values) * percent // 100) - 1]


def _last(node: ast.stmt | ast.expr) -> int:
    return node.end_lineno or node.lineno


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _docstring_lines(node: ast.AST) -> range:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Module)):
        return range(0)
    if ast.get_docstring(node, clean=False) is None:
        return range(0)
    first = node.body[0]
    return range(first.lineno, _last(first) + 1)


def _token_lines(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            yield from range(token.start[0], token.end[0] + 1)


def _depth(node: ast.AST) -> int:
    """Return how many blocks `node` opens inside each other; a nested function starts anew."""
    if isinstance(node, (*_DEFINITIONS, ast.ClassDef)):
        return 0
    inner = max(map(_depth, _children(node)), default=0)
    return inner + isinstance(node, _BLOCKS)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children, with those of an `elif` in its stead: it is no deeper than its `if`."""
    chained = node.orelse if isinstance(node, ast.If) and len(node.orelse) == 1 else []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and child in chained:
            yield from _children(child)
        else:
            yield child


def _public(node: ast.Module | ast.ClassDef) -> Iterator[Definition | ast.ClassDef]:
    for child in node.body:
        if not isinstance(child, (*_DEFINITIONS, ast.ClassDef)) or child.name.startswith("_"):
            continue
        yield child
        if isinstance(child, ast.ClassDef):
            yield from _public(child)


def _imported(node: ast.AST, known: set[str]) -> Iterator[str]:
    """Yield the modules that an import names; `from package import module` is that module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield from {full if full in known else node.module} & known


def _print() -> None:
    files = sources()
    functions = [function for source in files for function in source.functions]
    lengths = [function.length for function in functions]
    print(f"files {len(files)}, lines of code {sum(source.code_lines for source in files)}")
    print(f"largest file {max(source.code_lines for source in files)}")
    print(
        f"functions {len(lengths)}: median {statistics.median(lengths):g},"
        f" p95 {percentile(lengths, 95)}, longest {max(lengths)},"
        f" deepest {max(function.nesting for function in functions)}"
    )


if __name__ == "__main__":
    _print()
