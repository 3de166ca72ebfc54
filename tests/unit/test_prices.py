"""What a call costs: by list prices, prices of one's own, and what the prompt cache did."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.prices import cost_usd, micro_usd

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("model", "usage", "usd"),
    [
        ("claude-sonnet-5-5", Usage(input=MILLION), 2.0),
        ("claude-sonnet-5-5", Usage(output=MILLION), 10.0),
        ("claude-sonnet-5-5", Usage(cache_read=MILLION), 0.10),
        ("claude-sonnet-5-5", Usage(cache_write=MILLION), 2.50),
        ("claude-sonnet-5-5-20260901", Usage(cache_read=MILLION), 0.10),
        ("claude-haiku-5-5", Usage(input=100_000), 0.01),
        ("claude-haiku-5-5", Usage(cache_read=100_000), 0.001),
        ("claude-haiku-5-5", Usage(cache_write=100_000), 0.0125),
        ("claude-haiku-5-5", Usage(input=50_000, cache_read=50_001, output=MILLION), 2.52750005),
        ("gemma", Usage(input=MILLION), 0.0),
    ],
)
def test_a_call_costs_what_the_list_says(model: str, usage: Usage, usd: float) -> None:
    assert cost_usd(model, usage, {}) == pytest.approx(usd)


def test_a_price_of_ones_own_counts_for_prompts_of_any_length() -> None:
    own = {"claude-haiku": (1.0, 5.0)}
    assert cost_usd("claude-haiku-4-5", Usage(input=MILLION, cache_read=MILLION), own) == 1.1
    own = {"claude-haiku-5-5": (1.0, 5.0)}
    assert cost_usd("claude-haiku-5-5", Usage(input=MILLION), own) == 1.0


def test_a_price_of_ones_own_comes_before_one_of_the_list_for_a_longer_name() -> None:
    own = {"claude": (1.0, 5.0)}
    assert cost_usd("claude-sonnet-5-5", Usage(input=MILLION), own) == 1.0
    assert cost_usd("claude-haiku-5-5", Usage(input=MILLION), own) == 1.0


def test_each_call_is_priced_by_its_own_length() -> None:
    twice = [("claude-haiku-5-5", Usage(input=60_000))] * 2
    assert micro_usd(twice, {}) == 12_000
