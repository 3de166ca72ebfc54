"""What breaks valid things for the fuzzers breaks them at one place, and all of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from tests.kit.fuzz.broken import EXTREMES, Broken, broken, changes

EXAMPLE: dict[str, Any] = {"id": "a", "n": 1, "flag": True, "list": ["x", {"deep": None}]}
PLACES = {
    (), ("id",), ("n",), ("flag",), ("list",), ("list", 0), ("list", 1), ("list", 1, "deep"),
}  # fmt: skip


@given(broken(EXAMPLE))
def test_a_broken_thing_is_another_and_the_example_stays(thing: Broken) -> None:
    before = json.dumps(EXAMPLE)
    assert thing.where in PLACES
    assert json.dumps(thing.value) != before
    assert json.dumps(EXAMPLE) == before


@given(broken(EXAMPLE))
def test_everything_beside_the_broken_part_is_as_it_was(thing: Broken) -> None:
    if thing.how in ("replaced", "removed") and thing.where and isinstance(thing.value, dict):
        first = thing.where[0]
        assert {k: v for k, v in thing.value.items() if k != first} == {
            k: v for k, v in EXAMPLE.items() if k != first
        }


def test_there_is_each_way_to_break_each_place() -> None:
    seen = {(change.where, change.how) for change in changes(EXAMPLE)}
    assert {where for where, how in seen if how == "replaced"} == PLACES
    assert {where for where, how in seen if how == "removed"} == PLACES - {()}
    assert (("list", 0), "repeated") in seen
    assert {how for _, how in seen} == {"replaced", "removed", "renamed", "repeated", "added"}


def test_every_extreme_can_be_sent_as_json() -> None:
    for value in EXTREMES:
        json.dumps(value)
