"""Evaluates the part of PromQL that our rules, panels and scalers use, over a recording.

The parser is a library. It cannot run a query, and no package that we could lock brings a
Prometheus. A test compares the answers with those of `promtool`, where there is one. What is not
understood is an error, never an empty answer.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import promql_parser as promql

from tests.kit.promql.recording import Labels, Recording

#: A value for each set of labels, without the name.
Vector: TypeAlias = dict[Labels, float]
Value: TypeAlias = Vector | float

NOTHING: Labels = frozenset()

_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else math.nan if not a else math.copysign(math.inf, a),
}
_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": lambda a, b: a > b,
    "<": lambda a, b: a < b,
    ">=": lambda a, b: a >= b,
    "<=": lambda a, b: a <= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_AGGREGATES: dict[str, Callable[[list[float]], float]] = {
    "sum": sum,
    "max": max,
    "min": min,
    "count": lambda values: float(len(values)),
    "avg": lambda values: sum(values) / len(values),
}


def evaluate(query: str, recording: Recording, at: float) -> Vector:
    """Return what a query answers at a time; a scalar has no labels."""
    found = _Evaluation(recording, at).of(promql.parse(query))
    return found if isinstance(found, dict) else {NOTHING: found}


class _Evaluation:
    """One query at one time."""

    def __init__(self, recording: Recording, at: float) -> None:
        self._recording = recording
        self._at = at

    def of(self, expression: Any) -> Value:
        match expression:
            case promql.ParenExpr():
                return self.of(expression.expr)
            case promql.NumberLiteral():
                return float(expression.val)
            case promql.VectorSelector():
                return self._instant(expression)
            case promql.AggregateExpr():
                return self._aggregate(expression)
            case promql.BinaryExpr():
                return self._binary(expression)
            case promql.Call():
                return self._call(expression)
        raise NotImplementedError(type(expression).__name__)

    def _vector(self, expression: Any) -> Vector:
        found = self.of(expression)
        assert isinstance(found, dict), "a vector is wanted"
        return found

    def _instant(self, selector: Any) -> Vector:
        assert selector.offset is None
        assert selector.at is None
        values = {
            labels: self._recording.newest(labels, self._at) for labels in self._chosen(selector)
        }
        return {labels: value for labels, value in values.items() if value is not None}

    def _chosen(self, selector: Any) -> list[Labels]:
        matchers = selector.matchers.matchers
        return [
            labels
            for given, labels in self._recording.matching(selector.name)
            if all(_fits(matcher, given.get(matcher.name, "")) for matcher in matchers)
        ]

    def _aggregate(self, expression: Any) -> Vector:
        groups: dict[Labels, list[float]] = {}
        for labels, value in self._vector(expression.expr).items():
            groups.setdefault(_kept(labels, expression.modifier), []).append(value)
        total = _AGGREGATES[str(expression.op)]
        return {labels: total(values) for labels, values in groups.items()}

    def _binary(self, expression: Any) -> Value:
        left, right = self.of(expression.lhs), self.of(expression.rhs)
        name = str(expression.op)
        if isinstance(left, dict) and isinstance(right, dict):
            return _matched(name, left, right, expression.modifier)
        if isinstance(left, float) and isinstance(right, float):
            return _ARITHMETIC[name](left, right)
        if isinstance(left, dict):
            assert isinstance(right, float)
            return _each(name, left, lambda value: (value, right))
        assert isinstance(right, dict)
        number = left
        return _each(name, right, lambda value: (number, value))

    def _call(self, call: Any) -> Value:
        match call.func.name:
            case "vector":
                number = self.of(call.args[0])
                assert isinstance(number, float)
                return {NOTHING: number}
            case "absent":
                return {} if self._vector(call.args[0]) else {NOTHING: 1.0}
            case "rate" | "increase":
                return self._growth(call.args[0], per_second=call.func.name == "rate")
            case "histogram_quantile":
                share = self.of(call.args[0])
                assert isinstance(share, float)
                return _quantile(share, self._vector(call.args[1]))
        raise NotImplementedError(call.func.name)

    def _growth(self, matrix: Any, *, per_second: bool) -> Vector:
        span = matrix.range.total_seconds()
        found: Vector = {}
        for labels in self._chosen(matrix.vector_selector):
            samples = self._recording.between(labels, self._at - span, self._at)
            if len(samples) > 1:
                grown = extrapolated(samples, self._at - span, self._at)
                found[_nameless(labels)] = grown / span if per_second else grown
        return found


def extrapolated(samples: list[tuple[float, float]], begin: float, end: float) -> float:
    """Return by how much a counter grew in a span, as Prometheus estimates it at both ends."""
    values = [value for _, value in samples]
    pairs = list(itertools.pairwise(values))
    grown = values[-1] - values[0] + sum(a for a, b in pairs if b < a)
    first, last = samples[0][0], samples[-1][0]
    covered, step = last - first, (last - first) / (len(samples) - 1)
    before, after = first - begin, end - last
    if grown > 0 and values[0] >= 0:
        before = min(before, covered * values[0] / grown)
    limit = step * 1.1
    covered_more = covered
    covered_more += before if before < limit else step / 2
    covered_more += after if after < limit else step / 2
    return grown * covered_more / covered


def _fits(matcher: Any, text: str) -> bool:
    match str(matcher.op).rpartition(".")[2]:
        case "Equal":
            return bool(text == matcher.value)
        case "NotEqual":
            return bool(text != matcher.value)
        case "Re":
            return re.fullmatch(matcher.value, text) is not None
        case "NotRe":
            return re.fullmatch(matcher.value, text) is None
    raise NotImplementedError(matcher.op)


def _nameless(labels: Labels) -> Labels:
    return frozenset(one for one in labels if one[0] != "__name__")


def _kept(labels: Labels, modifier: Any) -> Labels:
    if modifier is None:
        return NOTHING
    names = set(modifier.labels)
    if str(modifier.type).rpartition(".")[2] == "By":
        return frozenset(one for one in labels if one[0] in names)
    return frozenset(one for one in _nameless(labels) if one[0] not in names)


def _each(name: str, vector: Vector, pair: Callable[[float], tuple[float, float]]) -> Vector:
    if name in _COMPARISONS:
        return {one: value for one, value in vector.items() if _COMPARISONS[name](*pair(value))}
    return {_nameless(one): _ARITHMETIC[name](*pair(value)) for one, value in vector.items()}


def _matched(name: str, left: Vector, right: Vector, modifier: Any) -> Vector:
    matching = getattr(modifier, "matching", None)

    def key(labels: Labels) -> Labels:
        if matching is None:
            return _nameless(labels)
        names = set(matching.labels)
        on = str(matching.type).rpartition(".")[2] == "Include"
        return frozenset(one for one in _nameless(labels) if (one[0] in names) is on)

    others = {key(labels): value for labels, value in right.items()}
    if name == "or":
        mine = {key(labels) for labels in left}
        return left | {one: value for one, value in right.items() if key(one) not in mine}
    if name in ("and", "unless"):
        return {one: v for one, v in left.items() if (key(one) in others) is (name == "and")}
    assert len(others) == len(right), "many to one"
    pairs = {one: (value, others[key(one)]) for one, value in left.items() if key(one) in others}
    if name in _COMPARISONS:
        return {one: pair[0] for one, pair in pairs.items() if _COMPARISONS[name](*pair)}
    return {key(one): _ARITHMETIC[name](*pair) for one, pair in pairs.items()}


def _quantile(share: float, buckets: Vector) -> Vector:
    groups: dict[Labels, list[tuple[float, float]]] = {}
    for labels, count in buckets.items():
        rest = frozenset(one for one in _nameless(labels) if one[0] != "le")
        groups.setdefault(rest, []).append((float(dict(labels)["le"]), count))
    return {labels: _at_rank(share, sorted(rows)) for labels, rows in groups.items()}


def _at_rank(share: float, rows: list[tuple[float, float]]) -> float:
    total = rows[-1][1]
    if not total:
        return math.nan
    rank = share * total
    place = next(i for i, (_, count) in enumerate(rows) if count >= rank)
    if place == len(rows) - 1:
        return rows[-2][0]
    below, begin = (rows[place - 1][1], rows[place - 1][0]) if place else (0.0, 0.0)
    upper, count = rows[place]
    return begin + (upper - begin) * (rank - below) / (count - below)


def selectors(query: str) -> Iterator[tuple[str, set[str]]]:
    """Yield the metrics that a query reads, each with the labels by which it chooses series."""
    todo: list[Any] = [promql.parse(query)]
    while todo:
        node = todo.pop()
        if isinstance(node, promql.VectorSelector):
            yield str(node.name), {one.name for one in node.matchers.matchers}
        todo += [
            inner
            for name in ("lhs", "rhs", "expr", "vector_selector")
            if isinstance(inner := getattr(node, name, None), promql.Expr)
        ]
        todo += getattr(node, "args", ())
