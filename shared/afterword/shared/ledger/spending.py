"""What replies and memory have cost, in all and in a period; and whether a budget is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

from afterword.shared.budgets import MICRO, budgets_argument, period_argument, share_spent
from afterword.shared.contracts import Extraction, Usage
from afterword.shared.ledger import spending_steps
from afterword.shared.ledger.records import moment, reading
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys, lane_id, memory_key, shard_of, user_of
from afterword.shared.settings import Settings

#: Lifetime of a user's sums of usage, in seconds since the newest of it.
USAGE_S = 90 * 24 * 3600.0

#: The fields of a job, and of sums of usage, that count what the extraction of facts took.
EXTRACTION_FIELDS = tuple(f"extraction:{name}" for name in (*Usage.model_fields, "cost", "facts"))


class ExtractionCost(NamedTuple):
    """What an attempt to store turns has paid for extraction so far; `cost` is in millionths."""

    usage: Usage
    cost: int


def paid_argument(paid: ExtractionCost | None, settings: Settings) -> str:
    """Return what was paid as scripts take it, see `count_extraction` in `_lib.lua`."""
    if paid is None:
        return ""
    amounts = (*dict(paid.usage).values(), paid.cost)
    told = (period_argument(settings), milliseconds(USAGE_S), *amounts)
    return " ".join(map(str, told))


def read_extraction(fields: Mapping[str, Any]) -> Extraction | None:
    """Return what the fields of a job, or sums of usage, tell of extraction; None if nothing."""
    found = [int(fields.get(name) or 0) for name in EXTRACTION_FIELDS]
    if not any(found):
        return None
    *tokens, cost, facts = found
    usage = Usage(**dict(zip(Usage.model_fields, tokens, strict=True)))
    usd = cost / MICRO
    return Extraction(
        usage=usage, cost_usd=usd, facts=facts, fact_usd=usd / facts if facts else None
    )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a tenant or a user has spent, in US dollars, and may spend in the period.

    `over` says whose budget is spent as far as was asked, `tenant` or `user`; '' if none is. The
    sums of a tenant are those of all shards.
    """

    in_all_usd: float
    in_period_usd: float
    ends_at: datetime
    over: str = ""
    in_period_tokens: int = 0
    most_usd: float | None = None
    most_tokens: int | None = None
    period: str = ""

    def with_spent(self, usd: float, tokens: int) -> Spent:
        """Return what somebody with the same budget has spent."""
        return replace(self, in_period_usd=usd, in_period_tokens=tokens)

    @property
    def share(self) -> float | None:
        """Return which share of the budget is spent, of money or tokens; None without a budget."""
        return share_spent(
            self.in_period_usd, self.most_usd, self.in_period_tokens, self.most_tokens
        )


class Spending:
    """Reads what was spent."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def of(self, tenant: str, user_id: str | None) -> Spent:
        """Return what a tenant has spent in all shards, or one of its users."""
        shards = self._shards.all
        if user_id is not None:
            owner = memory_key(tenant, user_id)
            keys = shards[shard_of(owner, len(shards))]
            return await self._read(keys, tenant, lane_id(owner, keys.shard), 1.0)
        found = [await self._read(keys, tenant, "", 1.0) for keys in shards]
        return replace(
            found[0],
            in_all_usd=round(sum(one.in_all_usd for one in found), 6),
            in_period_usd=round(sum(one.in_period_usd for one in found), 6),
            in_period_tokens=sum(one.in_period_tokens for one in found),
        )

    async def in_each_shard(self, tenants: Sequence[str]) -> Sequence[Sequence[Any]]:
        """Return what each shard answers about tenants, see `maintenance/budgets.lua`.

        One script of a shard reads all of them: ask for a hundred at most.
        """
        settings = self._shards.settings
        asked_for = [(tenant, budgets_argument(tenant, settings)) for tenant in tenants]
        arguments = spending_steps.ReadBudgets(tenants=asked_for)
        every = self._shards.all
        return [
            *await asyncio.gather(*(self._shards.run_script(keys, arguments) for keys in every))
        ]

    async def of_a_user(self, tenant: str) -> Spent:
        """Return what each user of a tenant may spend, and nothing that one has spent."""
        keys = self._shards.all[0]
        return await self._read(keys, tenant, lane_id(memory_key(tenant, "-"), keys.shard), 1.0)

    async def past(self, lane: str, share: float) -> Spent:
        """Return what the user of a lane has spent, and whether a share of a budget is spent."""
        return await self._read(self._shards.keys_of(lane), user_of(lane)[0], lane, share)

    async def _read(self, keys: Keys, tenant: str, lane: str, share: float) -> Spent:
        arguments = spending_steps.ReadSpending(
            tenant=tenant,
            lane=lane,
            budgets=budgets_argument(tenant, self._shards.settings),
            percent=round(share * 100),
        )
        in_all, in_period, tokens, period, ends, over, *most = await self._shards.run_script(
            keys, arguments
        )
        usd, most_tokens = most[bool(lane)], most[2 + bool(lane)]
        with reading("spending"):
            return Spent(
                int(in_all) / MICRO,
                int(in_period) / MICRO,
                moment(ends),
                over,
                in_period_tokens=int(tokens),
                period=period,
                most_usd=int(usd) / MICRO if usd else None,
                most_tokens=int(most_tokens) if most_tokens else None,
            )
