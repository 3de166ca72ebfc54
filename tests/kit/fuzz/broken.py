"""Breaks a valid thing at one place: what every door to the outside is tried with."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from hypothesis import strategies as st

#: Where something is in a JSON-like value: keys and indexes from the outside in.
Path = tuple[str | int, ...]


def nested(depth: int) -> list[Any]:
    """Return lists in lists, `depth` of them."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


#: Values that programs tend not to expect. All of them can be written as JSON by `json.dumps`.
EXTREMES: tuple[Any, ...] = (
    None, True, False,
    0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**400, -(10**400),
    0.0, -0.0, 0.5, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf,
    "", " ", "\0", "\n", "\r\n\r\n", "\x1b[2J\x1b]0;title\a", "\ud800", "a\udfff", "\u202e",
    "\ufeff", "e\u0301", "\U0001d7cf", "0", "-1", "1e400", "nan", "true", "null", "{}", "*",
    "../x", "a:b{c}", "x" * 300, "\u00e9" * 70_000,
    [], {}, [None], [[]], {"": None}, {"__class__": "x"}, nested(200),
)  # fmt: skip

#: What only a Python caller can pass: JSON has no such value, or `json.dumps` refuses it.
OBJECT_EXTREMES: tuple[Any, ...] = (10**5000, b"", b"\xff", (), {1}, object(), {1: 2}, 1j)


@dataclass(frozen=True, slots=True, repr=False)
class Broken:
    """A valid example after one change, and what the change was."""

    value: Any
    where: Path
    how: str

    def __repr__(self) -> str:
        return f"Broken({_shown(self.value)}, {self.where}, {self.how!r})"


def broken(example: Any, *, objects: bool = False) -> st.SearchStrategy[Broken]:
    """Return a strategy for `example` with exactly one part of it wrong.

    The example is a valid thing made of dicts, lists, strings, numbers, booleans and None, with
    every optional part present: only what it has can be broken. A change is one of: a key or item
    removed, renamed, repeated or added; a part replaced by one of another type, by a near miss
    (`"1"` or `True` for `1`, `["a"]` for `"a"`), or by an extreme (`EXTREMES`, or any JSON).

    With `objects`, parts may also be what JSON cannot express (`OBJECT_EXTREMES`): for doors that
    Python callers use. The result says where the change is, so that a test knows what to expect:

        @door("rows", row=broken({"id": "1", "memory": "likes tea", "score": 0.5}))
        def test_a_broken_row_is_dropped_or_read(row: Broken) -> None:
            parsed = parse(row.value)
            assert parsed is None or row.where != ("memory",)
    """
    # One strategy for all places and changes: Hypothesis takes its time to make one.
    places = st.sampled_from([_Change(where, "replaced", where, None) for where in _paths(example)])
    replaced = st.tuples(places, junk(objects=objects)).map(
        lambda drawn: drawn[0]._replace(part=drawn[1])
    )
    drawn = st.sampled_from(list(changes(example, objects=objects))) | replaced
    return drawn.filter(lambda change: _differs(example, change)).map(
        lambda change: Broken(_put(example, change.at, change.part), change.where, change.how)
    )


def junk(*, objects: bool = False) -> st.SearchStrategy[Any]:
    """Return a strategy for any JSON-like value, extremes among them."""
    return st.sampled_from(EXTREMES + OBJECT_EXTREMES * objects) | _TREES


_TREES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)


class _Change(NamedTuple):
    """What a test is told was changed and how, and what it takes to do that."""

    where: Path
    how: str
    at: Path
    part: Any

    def __repr__(self) -> str:
        return f"_Change({self.where}, {self.how!r}, {self.at}, {_shown(self.part)})"


def _paths(value: Any, where: Path = ()) -> Iterator[Path]:
    """Yield the place of a value and of everything in it."""
    yield where
    if isinstance(value, list):
        value = dict(enumerate(value))
    if isinstance(value, dict):
        for name, part in value.items():
            yield from _paths(part, (*where, name))


def changes(example: Any, *, objects: bool = False) -> Iterator[_Change]:
    """Yield every change that needs no drawing."""
    extremes = EXTREMES + OBJECT_EXTREMES * objects
    for where in _paths(example):
        part = _at(example, where)
        for other in (*_near(part), *extremes):
            yield _Change(where, "replaced", where, other)
        if isinstance(part, dict):
            yield from _dict_changes(part, where)
        if isinstance(part, list):
            yield from _list_changes(part, where)


def _dict_changes(part: dict[str, Any], where: Path) -> Iterator[_Change]:
    for name in ("extra", "", "__class__", "\0"):
        yield _Change(where, "added", where, part | {name: None})
    for name, value in part.items():
        rest = {key: one for key, one in part.items() if key != name}
        yield _Change((*where, name), "removed", where, rest)
        for other in (name.upper(), f"{name} ", f"{name}s"):
            yield _Change((*where, name), "renamed", where, rest | {other: value})


def _list_changes(part: list[Any], where: Path) -> Iterator[_Change]:
    yield _Change(where, "added", where, [*part, None])
    for n, value in enumerate(part):
        yield _Change((*where, n), "removed", where, part[:n] + part[n + 1 :])
        yield _Change((*where, n), "repeated", where, [*part, value])


def _near(part: Any) -> list[Any]:
    """Return values that are almost `part`."""
    wrapped: list[Any] = [[part], {"value": part}]
    if isinstance(part, bool):
        return [*wrapped, int(part), str(part), str(part).lower(), not part]
    if isinstance(part, str):
        return [*wrapped, list(part), part + "\n", part + "\0", " " + part, part.upper(), part * 50]
    if isinstance(part, int | float):
        return [*wrapped, str(part), float(part), bool(part), -part - 1, part + 0.5, part * 10**20]
    if isinstance(part, list):
        return [*wrapped, {str(n): one for n, one in enumerate(part)}, part * 2, str(part)]
    if isinstance(part, dict):
        return [*wrapped, list(part), list(part.items()), str(part)]
    return wrapped


def _differs(example: Any, change: _Change) -> bool:
    """Return whether a change changes anything; `1` and `True` differ."""
    return _shown(_at(example, change.at)) != _shown(change.part)


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # an int of more than 4,300 digits
        return f"<{type(value).__name__} that cannot be shown>"


def _at(value: Any, where: Path) -> Any:
    for name in where:
        value = value[name]
    return value


def _put(example: Any, where: Path, part: Any) -> Any:
    """Return a copy of the example with another part at a place."""
    if not where:
        return copy.deepcopy(part)
    changed = copy.deepcopy(example)
    _at(changed, where[:-1])[where[-1]] = copy.deepcopy(part)
    return changed
