"""What replies have cost, in all and in the period of budgets; and whether a budget is spent."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from afterword.shared.budgets import MICRO, budgets_argument
from afterword.shared.ledger import steps
from afterword.shared.ledger.records import moment, reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.names import Keys, lane_id, memory_key, shard_of, user_of


@dataclass(frozen=True, slots=True)
class Spent:
    """What a tenant or a user has spent, in US dollars.

    `over` says whose budget is spent as far as was asked, `tenant` or `user`; '' if none is.
    """

    in_all_usd: float
    in_period_usd: float
    ends_at: datetime
    over: str = ""


class Spending:
    """Reads what was spent. Budgets count each shard by itself, as caps do."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def of(self, tenant: str, user_id: str | None) -> Spent:
        """Return what a tenant has spent in all shards, or one of its users."""
        shards = self._shards.all
        if user_id is not None:
            owner = memory_key(tenant, user_id)
            keys = shards[shard_of(owner, len(shards))]
            return await self._read(keys, tenant, lane_id(owner, keys.shard), "", 1.0)
        found = [await self._read(keys, tenant, "", "", 1.0) for keys in shards]
        return Spent(
            sum(one.in_all_usd for one in found),
            sum(one.in_period_usd for one in found),
            found[0].ends_at,
        )

    async def past(self, lane: str, share: float) -> Spent:
        """Return what the user of a lane has spent, and whether a share of a budget is spent."""
        tenant = user_of(lane)[0]
        budgets = budgets_argument(tenant, self._shards.settings)
        return await self._read(self._shards.keys_of(lane), tenant, lane, budgets, share)

    async def _read(self, keys: Keys, tenant: str, lane: str, budgets: str, share: float) -> Spent:
        arguments = steps.ReadSpending(
            tenant=tenant,
            lane=lane,
            period=self._shards.settings.budget_period,
            budgets=budgets,
            percent=round(share * 100),
        )
        in_all, in_period, ends, over = await self._shards.run_script(keys, arguments)
        with reading("spending"):
            return Spent(int(in_all) / MICRO, int(in_period) / MICRO, moment(ends), over)
