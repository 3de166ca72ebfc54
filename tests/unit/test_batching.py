"""Which waiting turns go into one add: few enough, small enough, of one time, never regrouped."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.ledger.records import WaitingTurn
from afterword.shared.tokens import estimated_tokens
from afterword.workers.rules.batching import Batch, Bounds, batches

AT = datetime(2026, 5, 8, 12, tzinfo=UTC)
BOUNDS = Bounds(turns=3, tokens=100, span_s=60)


def turn(name: str, after_s: float = 0, text: str = "I like tea.") -> WaitingTurn:
    at = AT + timedelta(seconds=after_s)
    return WaitingTurn(name, at, text, "", None, attempts=0, snoozes=0, event_id=None)


def begun(*names: str) -> list[WaitingTurn]:
    first, *others = map(turn, names)
    return [replace(first, batch=names), *others]


def grouped(turns: list[WaitingTurn], bounds: Bounds = BOUNDS) -> list[str]:
    return ["".join(each.id for each in batch) for batch in batches(turns, bounds)]


def test_waiting_turns_are_batched_in_order() -> None:
    assert grouped([turn(name) for name in "abcdefgh"]) == ["abc", "def", "gh"]


def test_a_batch_size_of_one_batches_nothing() -> None:
    assert grouped([turn(name) for name in "abc"], replace(BOUNDS, turns=1)) == ["a", "b", "c"]


def test_no_turns_make_no_batch() -> None:
    assert batches([], BOUNDS) == []


def test_a_batch_is_bounded_by_its_tokens_and_a_longer_turn_goes_alone() -> None:
    long, longest = "x" * 150, "x" * 900
    turns = [turn("a", text=long), turn("b", text=long), turn("c", text=longest), turn("d")]

    assert grouped(turns) == ["ab", "c", "d"]


def test_replies_count_as_well() -> None:
    turns = [replace(turn(name), reply_text="x" * 180) for name in "ab"]

    assert grouped(turns) == ["a", "b"]


def test_a_batch_is_of_one_day_in_the_time_zone_of_its_user() -> None:
    bounds, midnight_in_berlin = replace(BOUNDS, span_s=600), 10 * 3600
    around = [turn("a", midnight_in_berlin - 60), turn("b", midnight_in_berlin + 60)]
    assert grouped(around, bounds) == ["ab"]

    in_berlin = [replace(one, timezone="Europe/Berlin") for one in around]

    assert grouped(in_berlin, bounds) == ["a", "b"]
    assert grouped([in_berlin[0], around[0]], bounds) == ["a", "a"], "another day, or none"


def test_a_batch_is_of_one_time() -> None:
    assert grouped([turn("a"), turn("b", 60), turn("c", 61)]) == ["ab", "c"]


def test_a_replayed_turn_does_not_go_with_what_was_said_long_after_it() -> None:
    assert grouped([turn("a", -86_400 * 30), turn("b"), turn("c")]) == ["a", "bc"]


def test_a_batch_does_not_go_over_midnight() -> None:
    """Yesterday is another day for those behind it."""
    assert grouped([turn("a", 43_190), turn("b", 43_199), turn("c", 43_201)]) == ["ab", "c"]


@pytest.mark.parametrize("names", ["a", "ab", "abcde"])
def test_a_batch_that_was_begun_keeps_its_turns_whatever_the_bounds(names: str) -> None:
    turns = [*begun(*names), turn("x"), turn("y")]

    assert grouped(turns) == [names, "xy"]
    assert grouped([turn("w"), *turns]) == ["w", names, "xy"]


_turns = st.lists(
    st.builds(
        turn,
        st.uuids().map(str),
        st.floats(-200, 200),
        st.text(max_size=200),
    ),
    max_size=12,
    unique_by=lambda each: each.id,
)
_bounds = st.builds(
    Bounds, turns=st.integers(1, 8), tokens=st.integers(1, 150), span_s=st.floats(0, 300)
)


@given(_turns, _bounds)
def test_every_turn_goes_once_and_in_its_order(turns: list[WaitingTurn], bounds: Bounds) -> None:
    assert list(chain.from_iterable(batches(turns, bounds))) == turns


@given(_turns, _bounds)
def test_every_batch_is_within_the_bounds(turns: list[WaitingTurn], bounds: Bounds) -> None:
    for batch in batches(turns, bounds):
        assert len(batch) <= bounds.turns
        assert len(batch) == 1 or _tokens(batch) <= bounds.tokens
        assert all(abs((each.at - batch[0].at).total_seconds()) <= bounds.span_s for each in batch)
        assert len({each.at.date() for each in batch}) == 1


@given(_turns, _bounds)
def test_no_batch_could_have_taken_the_next_turn(turns: list[WaitingTurn], bounds: Bounds) -> None:
    found = batches(turns, bounds)
    for batch, following in pairwise(found):
        assert len(batches([*batch, following[0]], bounds)) == 2


@given(_turns, _bounds, st.data())
def test_a_batch_that_was_begun_is_never_regrouped(
    turns: list[WaitingTurn], bounds: Bounds, data: st.DataObject
) -> None:
    """Whatever is put back before it, comes after it, or is set otherwise meanwhile."""
    before = batches(turns, data.draw(_bounds))
    at = data.draw(st.integers(0, len(before)))
    recorded = [_recorded(batch) for batch in before[:at]]
    after = batches([*chain.from_iterable(recorded), *chain.from_iterable(before[at:])], bounds)

    assert after[:at] == recorded


def _recorded(batch: Batch) -> Batch:
    return (replace(batch[0], batch=tuple(each.id for each in batch)), *batch[1:])


def _tokens(batch: Batch) -> int:
    return sum(
        estimated_tokens(each.user_text) + estimated_tokens(each.reply_text) for each in batch
    )
