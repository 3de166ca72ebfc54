"""The arguments of the scripts about what was spent; see `steps`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from afterword.shared.transport.signatures import declares


@declares("maintenance/spending")
class ReadSpending(NamedTuple):
    """Say what a tenant or a user has spent."""

    tenant: str
    lane: str
    budgets: str
    percent: int


@declares("maintenance/forget_spenders")
class ForgetSpenders(NamedTuple):
    """Forget tenants that have spent something, once the other shards were told."""

    told: Sequence[tuple[str, str]]


@declares("maintenance/budgets")
class ReadBudgets(NamedTuple):
    """Say what some tenants have spent in the running period, and may spend."""

    tenants: Sequence[tuple[str, str]]
