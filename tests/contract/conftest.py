"""Fixtures that the contract suites of the producers share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kit.workers.fleet import Fleet


@pytest.fixture(scope="module")
def fleets() -> Iterator[list[Fleet]]:
    """Give a list that holds the fleet once a test of a real producer has needed it."""
    started: list[Fleet] = []
    yield started
    for fleet in started:
        fleet.__exit__()
