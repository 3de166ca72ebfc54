"""A plan: the letters that a replay would touch, and about what that would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from afterword.producer.admin.cost_estimate import Estimate, estimated
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
    """The letters that a filter let through at one moment, and about what replaying them takes.

    `reasons` counts them by their code. A replay of the plan touches these letters and no others.
    """

    filter: DeadLetterFilter
    pace: ReplayPace
    dead_letters: tuple[DeadLetterRef, ...]
    turns: int
    jobs: int
    users: int
    reasons: dict[str, int]
    estimate: Estimate


async def build_plan(
    letters: AsyncIterator[DeadLetter],
    criteria: DeadLetterFilter,
    pace: ReplayPace,
    settings: Settings,
) -> ReplayPlan:
    """Return the plan for these letters, which the filter let through."""
    found: list[tuple[datetime, DeadLetterRef]] = []
    sizes: list[tuple[DeadLetterKind, int]] = []
    users: set[tuple[str, str]] = set()
    reasons: Counter[str] = Counter()
    async for letter in letters:
        found.append((letter.submitted_at, letter.ref))
        sizes.append((letter.kind, letter.size))
        users.add((letter.tenant, letter.user_id))
        reasons[letter.code] += 1
    found.sort(key=lambda one: one[0])  # what was said first goes first
    jobs = sum(kind is DeadLetterKind.REPLY for kind, _ in sizes)
    estimate = estimated(
        sizes,
        backend=settings.backend,
        model=settings.model,
        memory_model=settings.memory_model,
        rate=pace.rate,
        own_prices=settings.model_prices,
    )
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
