"""What was said on a day that a question asks for is preferred."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from afterword.workers.adapters.mem0.sqlite.days import Times, day_points
from afterword.workers.adapters.mem0.sqlite.ranking import Numbers, Scale
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from tests.kit.sqlite_store.hashing_embedder import DIMS, vector

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def said_on(*days: int) -> Numbers:
    """Return times at noon of so many days after the first of May."""
    return np.array([(NOON + timedelta(days=day)).timestamp() for day in days], np.int64)


def day(number: int, year: int = 2026) -> Times:
    return [(date(year, 5, number),) * 2]


def test_what_was_said_on_the_day_gains_and_beside_it_less() -> None:
    before, on, after, later = day_points([day(3)], said_on(1, 2, 3, 9))
    assert on > 0.0
    assert before == after == pytest.approx(on / 4)
    assert later == 0.0


def test_the_rarer_a_day_is_the_more_it_counts() -> None:
    rare, often = (day_points([day(3)], said_on(2, *others)) for others in ([9] * 8, [2] * 8))
    assert rare[0] > 3 * often[0]


def test_a_span_is_from_its_first_to_its_last_day() -> None:
    points = day_points([[(date(2026, 5, 3), date(2026, 5, 5))]], said_on(1, 2, 3, 4, 5))
    assert [one > 0 for one in points] == [False, True, True, True, False]


def test_of_what_a_time_may_mean_the_first_counts_at_which_anything_was_said() -> None:
    times = [*day(3, 2027), *day(4), *day(5)]
    points = day_points([times], said_on(3, 4))
    assert points[0] > points[1] > 0


def test_without_a_time_or_a_memory_nothing_is_gained() -> None:
    assert day_points([], said_on(1, 2)).tolist() == [0, 0]
    assert day_points([day(3)], said_on()).tolist() == []


def test_a_search_asks_which_days_its_query_names(tmp_path: Path) -> None:
    store = SqliteStore(
        tmp_path / "x", embedder="hashing", dims=DIMS, scale=Scale(), reading_s=math.inf,
        asked_days=lambda query: [day(3)] if "then" in query else [],
    )  # fmt: skip
    for number in range(8):
        at = NOON + timedelta(days=number)
        payload = {"user_id": "ana", "data": f"walk {number}", "created_at": at.isoformat()}
        store.insert([vector(f"walk {number}")], [payload], [str(number)])
    first = [
        store.search(query, vector("walk"), 1, {"user_id": "ana"})[0].payload["data"]
        for query in ("then", "now")
    ]
    store.close()
    assert first == ["walk 2", "walk 7"]
