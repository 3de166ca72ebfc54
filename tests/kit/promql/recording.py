"""Scrapes of staged moments, kept as Prometheus keeps them: series of samples over time."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from prometheus_client.parser import text_string_to_metric_families

#: A series' name and labels; the name is the label `__name__`.
Labels: TypeAlias = frozenset[tuple[str, str]]

#: How old the newest sample of a series may be.
LOOKBACK_S = 300.0


class Recording:
    """What a Prometheus scraped: a series that a target no longer has is stale from then on."""

    def __init__(self) -> None:
        self._series: dict[Labels, tuple[list[float], list[float]]] = {}
        self._of_target: dict[str, set[Labels]] = {}

    def scrape(self, at: float, target: str, text: str) -> None:
        """Add what a target served at a time, later than all before."""
        seen: set[Labels] = set()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                given = {"__name__": sample.name, "instance": target, **sample.labels}
                labels = frozenset(given.items())
                seen.add(labels)
                self._add(labels, at, sample.value)
        for gone in self._of_target.get(target, set()) - seen:
            self._add(gone, at, math.nan)
        self._of_target[target] = seen

    def names(self) -> set[str]:
        """Return the names of all series."""
        return {dict(labels)["__name__"] for labels in self._series}

    def labels_of(self, name: str) -> set[str]:
        """Return the labels that series of a name have."""
        found = (dict(labels) for labels in self._series)
        return {label for one in found if one["__name__"] == name for label in one}

    def matching(self, name: str) -> Iterator[tuple[dict[str, str], Labels]]:
        """Yield the labels of each series of a name."""
        for labels in self._series:
            given = dict(labels)
            if given["__name__"] == name:
                yield given, labels

    def newest(self, labels: Labels, at: float) -> float | None:
        """Return a series' value at a time, or nothing if it has none then."""
        times, values = self._series[labels]
        last = bisect_right(times, at) - 1
        if last < 0 or times[last] <= at - LOOKBACK_S or math.isnan(values[last]):
            return None
        return values[last]

    def between(self, labels: Labels, after: float, until: float) -> list[tuple[float, float]]:
        """Return a series' samples after a time until another, without marks of staleness."""
        times, values = self._series[labels]
        span = range(bisect_right(times, after), bisect_right(times, until))
        return [(times[i], values[i]) for i in span if not math.isnan(values[i])]

    def rows(self, names: Iterable[str]) -> Iterator[tuple[Mapping[str, str], dict[float, float]]]:
        """Yield the series of these names with all their samples, for `promtool`."""
        wanted = set(names)
        for labels, (times, values) in self._series.items():
            if dict(labels)["__name__"] in wanted:
                yield dict(labels), dict(zip(times, values, strict=True))

    def _add(self, labels: Labels, at: float, value: float) -> None:
        times, values = self._series.setdefault(labels, ([], []))
        times.append(at)
        values.append(value)
