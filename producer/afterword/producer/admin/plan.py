"""The plan of a replay: which dead letters it takes, and about what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from afterword.producer.admin.cost_estimate import Estimate, estimate_replay
from afterword.shared.ledger.dead_letter_records import (
    DeadLetter,
    DeadLetterFilter,
    DeadLetterKind,
    DeadLetterRef,
    ReplayPace,
)
from afterword.shared.settings import Settings


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """The dead letters that matched a filter at one moment, and about what replaying them takes.

    A replay of the plan takes these dead letters and no others.
    """

    filter: DeadLetterFilter
    """The filter."""

    pace: ReplayPace
    """How fast the replay goes, and when it stops."""

    dead_letters: tuple[DeadLetterRef, ...]
    """What is replayed, the one submitted first coming first."""

    turns: int
    """How many of them are turns that could not be stored."""

    jobs: int
    """How many of them are jobs without a reply."""

    users: int
    """How many users they belong to."""

    reasons: dict[str, int]
    """How many of them have which error code, the most frequent first."""

    estimate: Estimate
    """About how many calls, tokens, dollars and minutes the replay takes."""


async def build_plan(
    letters: AsyncIterator[DeadLetter],
    criteria: DeadLetterFilter,
    pace: ReplayPace,
    settings: Settings,
) -> ReplayPlan:
    """Return the plan for these dead letters, which have matched the filter."""
    found: list[tuple[datetime, DeadLetterRef]] = []
    sizes: list[tuple[DeadLetterKind, int]] = []
    users: set[tuple[str, str]] = set()
    reasons: Counter[str] = Counter()
    async for letter in letters:
        found.append((letter.submitted_at, letter.ref))
        sizes.append((letter.kind, letter.size))
        users.add((letter.tenant, letter.user_id))
        reasons[letter.code] += 1
    found.sort(key=lambda one: one[0])  # oldest message first
    jobs = sum(kind is DeadLetterKind.REPLY for kind, _ in sizes)
    estimate = estimate_replay(sizes, settings, pace.rate)
    return ReplayPlan(
        filter=criteria,
        pace=pace,
        dead_letters=tuple(letter for _, letter in found),
        turns=len(found) - jobs,
        jobs=jobs,
        users=len(users),
        reasons=dict(reasons.most_common()),
        estimate=estimate,
    )
