"""The estimate of what a call will use: bounded, and right on average once answers have come."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.contracts import Usage
from afterword.workers.rules.token_estimate import FIRST_OUTPUT, TokenEstimate

_COUNT = st.integers(0, 1_000_000)
_ANSWERS = st.lists(st.tuples(_COUNT, _COUNT, _COUNT, _COUNT, _COUNT), max_size=50)


def after(answers: list[tuple[int, int, int, int, int]]) -> TokenEstimate:
    estimate = TokenEstimate()
    for guess, given_, got, read, written in answers:
        usage = Usage(input=given_, output=got, cache_read=read, cache_write=written)
        estimate = estimate.corrected(guess, usage)
    return estimate


def test_before_the_first_answer_the_guess_counts_and_a_long_answer_is_expected() -> None:
    assert TokenEstimate().input_tokens(70) == 70
    assert TokenEstimate().output_tokens(4096) == FIRST_OUTPUT
    assert TokenEstimate().output_tokens(10) == 10


@given(answers=_ANSWERS, guess=_COUNT, most=st.integers(1, 128_000))
def test_an_estimate_is_at_least_one_and_no_answer_is_longer_than_it_may_be(
    answers: list[tuple[int, int, int, int, int]], guess: int, most: int
) -> None:
    estimate = after(answers)

    assert 1 <= estimate.input_tokens(guess) <= max(1, 10 * guess)
    assert 1 <= estimate.output_tokens(most) <= most


@given(answers=_ANSWERS.filter(bool))
def test_averages_stay_among_what_was_seen(answers: list[tuple[int, int, int, int, int]]) -> None:
    estimate = after(answers)

    outputs = [got for _, _, got, _, _ in answers]
    assert estimate.output is not None
    assert min(outputs) - 1e-6 <= estimate.output <= max(outputs) + 1e-6


@given(ratio=st.floats(0.1, 5), guesses=st.lists(st.integers(100, 10_000), min_size=1, max_size=99))
def test_a_constant_error_of_the_guess_is_corrected(ratio: float, guesses: list[int]) -> None:
    estimate = after([(guess, round(guess * ratio), 50, 0, 0) for guess in guesses])

    assert abs(estimate.input_tokens(1000) - 1000 * ratio) <= 12
    assert estimate.output_tokens(4096) == 50


def test_what_is_read_from_the_cache_does_not_count_and_what_is_written_does() -> None:
    estimate = after([(1000, 100, 10, 700, 200)])

    assert estimate.input_tokens(1000) == 300
