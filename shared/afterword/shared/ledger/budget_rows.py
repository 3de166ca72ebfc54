"""What tenants and users have spent of their budgets, those nearest to the limit first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from afterword.shared.budgets import MICRO
from afterword.shared.ledger.records import moment, reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import Spending, Spent
from afterword.shared.names import Keys, lane_id, memory_key, user_of

#: Most users of a tenant that one list looks at, and most tenants that one script reads.
MOST_USERS = 100_000
_AT_ONCE = 100

_TOKENS = "/tokens"


@dataclass(frozen=True, slots=True)
class BudgetRow:
    """What a tenant, or one of its users, has spent in the running period, and may spend."""

    tenant: str
    """The tenant."""

    user_id: str | None
    """The user; None for the whole tenant."""

    spent_usd: float
    """US dollars that were spent, on replies and on extraction."""

    spent_tokens: int
    """Tokens that were spent, of all kinds together."""

    most_usd: float | None
    """US dollars that may be spent; None without such a budget. A tenant's is that of all shards
    together."""

    most_tokens: int | None
    """Tokens that may be spent; None without such a budget."""

    left_usd: float | None
    """US dollars that are left, 0 if more was spent; None without such a budget."""

    left_tokens: int | None
    """Tokens that are left; None without such a budget."""

    share: float | None
    """Which part of its budget is spent, of money or of tokens, whichever is more; None without."""

    resets_at: datetime
    """When the period ends and budgets begin anew."""

    @property
    def is_spent(self) -> bool:
        """Return whether nothing is left: new requests are refused."""
        return self.share is not None and self.share >= 1.0


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """Some tenants, or some users of one, those first that have spent most of their budget."""

    rows: Sequence[BudgetRow]
    """Those that were asked for."""

    count: int
    """How many there are in all: tenants with jobs, or users who have spent something."""

    more: bool
    """Whether there are others behind these."""

    complete: bool
    """Whether all were looked at: of a tenant with very many users, 100,000 are."""


class BudgetRows:
    """Reads what is spent of budgets, and changes nothing."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._spending = Spending(shards)

    async def tenants(self) -> tuple[Sequence[BudgetRow], bool]:
        """Return all tenants that have, or had, jobs; those nearest to their budget first."""
        tallies = [await self._shards.counts(keys) for keys in self._shards.all]
        counted = {name for found in tallies for name in found if name.startswith("job:")}
        rows = await self.of_tenants(sorted({name.split(":", 2)[2] for name in counted}))
        return sorted(rows, key=_nearest_first), True

    async def of_tenants(self, tenants: Sequence[str]) -> Sequence[BudgetRow]:
        """Return what some tenants have spent and may spend, in the same order."""
        parts = [tenants[at : at + _AT_ONCE] for at in range(0, len(tenants), _AT_ONCE)]
        found = await asyncio.gather(*(self._of_tenants(part) for part in parts))
        return [row for rows in found for row in rows]

    async def _of_tenants(self, tenants: Sequence[str]) -> list[BudgetRow]:
        answers = await self._spending.in_each_shard(tenants)
        with reading("spending"):
            ends = moment(answers[0][0])
            each = zip(*(rows for *_, rows in answers), strict=True)
            return [
                _row(tenant, None, _spent_in_all(ends, shards))
                for tenant, shards in zip(tenants, each, strict=True)
            ]

    async def users(self, tenant: str) -> tuple[Sequence[BudgetRow], bool]:
        """Return users of a tenant who have spent something in the period, nearest first.

        The other value says whether there were no more users than one list looks at.
        """
        limits = await self._spending.of_a_user(tenant)
        spent: dict[str, list[int]] = {}
        complete = True
        for keys in self._shards.all:
            complete = await self._add_users(keys, tenant, limits.period, spent) and complete
        rows = [
            _row(tenant, user_id, limits.with_spent(usd / MICRO, tokens))
            for user_id, (usd, tokens) in spent.items()
        ]
        return sorted(rows, key=_nearest_first), complete

    async def _add_users(
        self, keys: Keys, tenant: str, period: str, spent: dict[str, list[int]]
    ) -> bool:
        """Add what users in one shard have spent; return whether all were looked at."""
        # A tenant is percent-encoded: it holds no wildcard.
        every_lane = lane_id(memory_key(tenant, "x"), keys.shard)[:-1]
        async for found in self._shards.scan(f"{keys.spent(every_lane)}*/{period}*"):
            ours = list(_of_period(found, keys, period))
            if not ours:
                continue
            asking = (self._shards.send_command("GET", key) for key, *_ in ours)
            values = await asyncio.gather(*asking)
            with reading("spending"):
                for (_, user_id, is_tokens), value in zip(ours, values, strict=True):
                    spent.setdefault(user_id, [0, 0])[is_tokens] = int(value or 0)
            if len(spent) > MOST_USERS:
                return False
        return True


def _of_period(found: Sequence[str], keys: Keys, period: str) -> Iterator[tuple[str, str, bool]]:
    """Yield the keys of a period: each, whose it is, and whether it counts tokens."""
    for key in found:
        is_tokens = key.endswith(_TOKENS)
        lane, _, name = key.removesuffix(_TOKENS).removeprefix(keys.spent("")).rpartition("/")
        if name == period and lane.count("/") == 1:
            yield key, user_of(lane)[1], is_tokens


def _spent_in_all(ends_at: datetime, shards: Sequence[Sequence[str]]) -> Spent:
    """Return what a tenant has spent in all shards, which have one budget together."""
    *_, usd, tokens = shards[0]
    return Spent(
        0.0,
        round(sum(int(spent) for spent, *_ in shards) / MICRO, 6),
        ends_at,
        in_period_tokens=sum(int(spent) for _, spent, *_ in shards),
        most_usd=int(usd) / MICRO if usd else None,
        most_tokens=int(tokens) if tokens else None,
    )


def _row(tenant: str, user_id: str | None, spent: Spent) -> BudgetRow:
    usd, tokens = spent.most_usd, spent.most_tokens
    return BudgetRow(
        tenant=tenant,
        user_id=user_id,
        spent_usd=spent.in_period_usd,
        spent_tokens=spent.in_period_tokens,
        most_usd=usd,
        most_tokens=tokens,
        left_usd=None if usd is None else max(0.0, round(usd - spent.in_period_usd, 6)),
        left_tokens=None if tokens is None else max(0, tokens - spent.in_period_tokens),
        share=spent.share,
        resets_at=spent.ends_at,
    )


def _nearest_first(row: BudgetRow) -> tuple[float, float, int, str]:
    share = -1.0 if row.share is None else row.share
    return -share, -row.spent_usd, -row.spent_tokens, row.user_id or row.tenant
