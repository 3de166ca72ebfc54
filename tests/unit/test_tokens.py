"""The estimate of tokens: cheap, monotonous, never zero for something."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.tokens import BYTES_PER_TOKEN, estimated_tokens


def test_an_empty_text_has_no_tokens() -> None:
    assert estimated_tokens("") == 0


@given(st.text(min_size=1))
def test_something_is_at_least_one(text: str) -> None:
    assert estimated_tokens(text) >= 1


@given(st.text(), st.text())
def test_parts_are_never_fewer_than_the_whole(one: str, two: str) -> None:
    whole = estimated_tokens(one + two)

    assert whole >= max(estimated_tokens(one), estimated_tokens(two))
    assert estimated_tokens(one) + estimated_tokens(two) >= whole


def test_it_counts_bytes_and_not_characters() -> None:
    assert estimated_tokens("a" * 3 * BYTES_PER_TOKEN) == 3
    assert estimated_tokens("日" * 3) == -(-9 // BYTES_PER_TOKEN)


def test_a_lone_surrogate_does_not_break_it() -> None:
    assert estimated_tokens("\ud800") == 1
