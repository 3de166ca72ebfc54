"""Settings, keys and jobs that submitters and workers of all peers share."""

from __future__ import annotations

import os
from collections.abc import Iterator

IN_FLIGHT = int(os.environ.get("BENCH_IN_FLIGHT", "200"))
REDIS = os.environ.get("BENCH_REDIS", "redis://localhost")
PROVIDER = os.environ.get("BENCH_PROVIDER", "")
STREAMED = os.environ.get("BENCH_STREAMED", "1") == "1"

#: STRING: how many jobs a design has answered and recorded.
ANSWERED = "bench:answered"


def jobs(run: str, count: int) -> Iterator[tuple[str, str, str]]:
    """Yield id, user and message of each job; every job has its own user."""
    for number in range(count):
        yield f"{run}-{number}", user_of(run, number), f"What is a good temperature? {number}"


def user_of(run: str, number: int) -> str:
    """Return the user of a job."""
    return f"{run}-user-{number}"


def reply_key(job: str) -> str:
    """Return the key of a reply: a STRING of JSON."""
    return f"bench:reply:{job}"


def turns_key(user: str) -> str:
    """Return the key of a user's turns: a LIST of JSON."""
    return f"bench:turns:{user}"
