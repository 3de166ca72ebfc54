"""Tells each shard what a tenant has spent in the others: its budget is one of all shards."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from afterword.shared.budgets import MICRO
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import Spending, Spent
from afterword.shared.names import Keys

#: Most tenants of a shard that are told of at once; the others are with the next time.
_AT_ONCE = 100


class TenantSpending:
    """Adds up what tenants spend in all shards, and tells each shard what is not its own.

    A sum is never told too high, so nobody is refused too early; it is behind by what was spent
    since.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._spending = Spending(shards)

    async def tell_all(self) -> None:
        """Tell of every tenant that has spent something since the last time."""
        for keys in self._shards.all:
            found = await self._shards.send_command("ZPOPMIN", keys.spenders, _AT_ONCE)
            for tenant, _ in found:
                await self.tell(tenant)

    async def tell(self, tenant: str) -> None:
        """Tell each shard what a tenant has spent in the others, if it has a budget."""
        found = await self._spending.in_each_shard(tenant)
        if found[0].share is None:
            return
        usd, tokens = sum(map(_micro, found)), sum(one.in_period_tokens for one in found)
        await asyncio.gather(
            *(
                self._tell(keys, tenant, one, (usd - _micro(one), tokens - one.in_period_tokens))
                for keys, one in zip(self._shards.all, found, strict=True)
            )
        )

    async def _tell(self, keys: Keys, tenant: str, one: Spent, elsewhere: Sequence[int]) -> None:
        key = f"{keys.spent(f':{tenant}')}/{one.period}"
        ends = round(one.ends_at.timestamp() * 1000)
        for name, amount in zip((key, f"{key}/tokens"), elsewhere, strict=True):
            await self._shards.send_command("SET", f"{name}/elsewhere", amount, "PXAT", ends)


def _micro(spent: Spent) -> int:
    return round(spent.in_period_usd * MICRO)
