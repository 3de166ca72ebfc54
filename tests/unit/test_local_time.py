"""Days in the user's time zone: what day it is, and when a message was sent."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from afterword.shared.local_time import local, today_line, zone_named

#: Half past eleven in the evening in London, and already Tuesday in Berlin.
NOW = datetime(2026, 11, 30, 23, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "line"),
    [
        ("UTC", "Today is Monday, 30 November 2026."),
        ("Europe/Berlin", "Today is Tuesday, 1 December 2026."),
        ("America/New_York", "Today is Monday, 30 November 2026."),
        (None, ""),
        ("Moon/Tranquility", ""),
    ],
)
def test_the_day_is_that_of_the_time_zone(zone: str | None, line: str) -> None:
    assert today_line(NOW, NOW, zone) == line


def test_a_message_of_another_day_says_of_which() -> None:
    said = NOW - timedelta(hours=2)  # Monday in Berlin
    assert today_line(NOW, said, "Europe/Berlin") == (
        "Today is Tuesday, 1 December 2026. The message was sent on Monday, 30 November 2026."
    )
    assert today_line(NOW, said, "UTC") == "Today is Monday, 30 November 2026."


def test_a_day_has_the_offset_that_it_had_then() -> None:
    assert local(datetime(2026, 7, 1, 12, tzinfo=UTC), "Europe/Berlin").hour == 14
    assert local(datetime(2026, 12, 1, 12, tzinfo=UTC), "Europe/Berlin").hour == 13
    assert local(NOW, None) == NOW


@pytest.mark.parametrize("name", ["Europe", "../UTC", "/etc/passwd", "zone.tab", "UTC\0", "é", ""])
def test_what_names_no_time_zone_is_none(name: str) -> None:
    assert zone_named(name) is None
