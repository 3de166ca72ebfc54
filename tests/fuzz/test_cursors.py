"""The door of cursors: what a caller passes to go on with a stream where it was left."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import strategies as st
from redis import Redis

from afterword.producer import InvalidRequest
from afterword.producer.testing import FakeProducer
from tests.kit.fuzz.broken import Broken, broken
from tests.kit.fuzz.doors import door
from tests.kit.servers.valkey import Valkey

#: Halves of an id, at the edges of what Redis counts with.
HALVES = st.sampled_from(["0", "1", str(2**63), str(2**64 - 2), str(2**64 - 1), str(2**64), "007"])


@pytest.fixture(scope="module")
def stream(valkey: Valkey) -> Iterator[Redis]:
    """Give a Redis, which judges the cursors that we let through."""
    with valkey.client() as client:
        yield client


def check(cursor: object, stream: Redis) -> None:
    """Pass a cursor to a stream: it is refused by its name, or Redis takes it."""
    job = FakeProducer().submit(user_id="ann", message="hello")
    try:
        list(job.stream(after=cursor))  # type: ignore[arg-type]
    except InvalidRequest as refused:
        assert refused.field == "after"  # noqa: PT017 both ends are fine
        if refused.reason != "must be the id of an event of this job":
            return  # the others have the form of one, and go to Redis
    assert cursor is None or re.fullmatch(r"[0-9]+-[0-9]+", str(cursor))
    stream.xrange("no-such-stream", f"({cursor}" if cursor else "-", "+")


@door("cursors", cursor=broken("1700000000000-3", objects=True))
def test_a_broken_cursor_is_refused_or_read(stream: Redis, cursor: Broken) -> None:
    check(cursor.value, stream)


@door("cursors at the edges", first=HALVES, second=HALVES)
def test_a_cursor_at_the_edges_is_refused_or_read(stream: Redis, first: str, second: str) -> None:
    check(f"{first}-{second}", stream)
