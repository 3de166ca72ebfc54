"""Numbers on the console read as people write them."""

from __future__ import annotations

import pytest

from afterword.producer.web.rendering import number


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"),
        (100, "100"),
        (1_234_567, "1,234,567"),
        (159.0, "159"),
        (2.666, "2.67"),
        (0.5, "0.50"),
    ],
)
def test_only_a_number_that_is_not_whole_has_decimals(value: float, shown: str) -> None:
    assert number(value) == shown
