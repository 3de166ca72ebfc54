"""What Claude's headers tell of a rate limit: each part by itself, and never too much."""

from __future__ import annotations

import pytest

from afterword.shared.ledger.quota_records import QuotaLevel
from afterword.workers.adapters.claude.rate_limits import quota_levels

DATE = "Thu, 01 Oct 2026 12:00:00 GMT"


def headers(
    budget: str, limit: str, left: str, reset: str = "2026-10-01T12:00:13Z"
) -> dict[str, str]:
    values = {"limit": limit, "remaining": left, "reset": reset}
    return {f"anthropic-ratelimit-{budget}-{field}": value for field, value in values.items()}


ALL = {
    "date": DATE,
    **headers("requests", "50", "49"),
    **headers("input-tokens", "40000", "31234"),
    **headers("output-tokens", "8000", "8000"),
    **headers("tokens", "48000", "39234"),
}


def test_each_part_is_read() -> None:
    assert quota_levels(ALL) == (
        QuotaLevel("requests", 50, 49),
        QuotaLevel("input", 40_000, 31_234),
        QuotaLevel("output", 8_000, 8_000),
    )


def test_tokens_together_count_where_they_are_not_told_apart() -> None:
    told = headers("tokens", "48000", "39234")

    assert quota_levels(told) == (QuotaLevel("tokens", 48_000, 39_234),)


def test_a_provider_without_such_headers_has_no_limit() -> None:
    assert quota_levels({"date": DATE, "retry-after": "3"}) == ()


@pytest.mark.parametrize(
    ("limit", "left"),
    [("0", "0"), ("many", "1"), ("-5", "1"), ("50", ""), ("50", "-1"), ("5e3", "1"), ("٣", "1"),
     ("9" * 13, "1"), ("50", "1.5")],
)  # fmt: skip
def test_what_is_no_number_is_not_told(limit: str, left: str) -> None:
    assert quota_levels(headers("requests", limit, left)) == ()


def test_tokens_that_were_rounded_up_are_not_believed() -> None:
    found = quota_levels(headers("input-tokens", "40000", "3000"))

    assert found == (QuotaLevel("input", 40_000, 2_500),)
    assert quota_levels(headers("input-tokens", "40000", "0"))[0].remaining == 0
    assert quota_levels(headers("requests", "40000", "3000"))[0].remaining == 3000


def test_more_than_the_limit_is_the_limit() -> None:
    assert quota_levels(headers("requests", "50", "70"))[0].remaining == 50


@pytest.mark.parametrize(
    ("left", "reset", "refill_s"),
    [
        ("500", "2026-10-01T12:00:30Z", 60.0),  # as the API does
        ("0", "2026-10-01T13:00:00Z", 3600.0),  # once an hour
        ("500", "2026-10-01T12:00:01Z", 60.0),  # never faster than said
        ("950", "2026-10-01T13:00:00Z", 60.0),  # too little was used to tell
        ("0", "tomorrow", 60.0),
        ("0", "2099-10-01T12:00:00Z", 86_400.0),
    ],
)
def test_a_limit_refills_in_a_minute_unless_its_reset_is_clearly_later(
    left: str, reset: str, refill_s: float
) -> None:
    told = {"date": DATE, **headers("requests", "1000", left, reset)}

    assert quota_levels(told)[0].refill_s == refill_s
