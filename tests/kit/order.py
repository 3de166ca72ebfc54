"""The order of the tests: slow ones first, since all workers wait for one that starts last."""

from __future__ import annotations

import pytest

#: The folders whose tests take longest, in this order.
_SLOW_FIRST = ("system", "faults", "examples")


def arrange(items: list[pytest.Item]) -> None:
    """Sort the tests: slow ones first, serial ones last."""
    items.sort(key=_rank)


def _rank(item: pytest.Item) -> tuple[bool, bool, int]:
    folder = item.nodeid.split("/")[1]
    place = _SLOW_FIRST.index(folder) if folder in _SLOW_FIRST else len(_SLOW_FIRST)
    serial = item.get_closest_marker("serial") is not None
    return serial, item.get_closest_marker("slow") is None, place
