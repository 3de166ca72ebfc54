"""Tells each shard what a tenant has spent in the others: its budget is one of all shards."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

from afterword.shared.ledger import spending_steps
from afterword.shared.ledger.records import reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.ledger.spending import Spending

#: Most tenants of a shard that are told of at once; the others are with the next time.
_AT_ONCE = 100


class TenantSpending:
    """Adds up what tenants spend in all shards, and tells each shard what is not its own.

    A sum is never told too high, so nobody is refused too early; it is behind by what was spent
    since. Who has spent something is forgotten once all shards were told.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards
        self._spending = Spending(shards)

    async def tell_all(self) -> None:
        """Tell of every tenant that has spent something since the last time."""
        for keys in self._shards.all:
            found = await self._shards.send_command(
                "ZRANGE", keys.spenders, 0, _AT_ONCE - 1, "WITHSCORES"
            )
            if found:
                await self._tell(found[::2])
                told = list(zip(found[::2], found[1::2], strict=True))
                await self._shards.run_script(keys, spending_steps.ForgetSpenders(told=told))

    async def _tell(self, tenants: Sequence[str]) -> None:
        """Tell each shard what those of the tenants that have a budget spent in the others."""
        answers = await self._spending.in_each_shard(tenants)
        with reading("spending"):
            commands = list(self._commands(tenants, answers))
        await asyncio.gather(*(self._shards.send_command(*one) for one in commands))

    def _commands(
        self, tenants: Sequence[str], answers: Sequence[Sequence[Any]]
    ) -> Iterator[tuple[str | int, ...]]:
        ends_ms, period, _ = answers[0]
        for tenant, *rows in zip(tenants, *(rows for *_, rows in answers), strict=True):
            if not any(rows[0][2:]):
                continue  # it has no budget
            for at, suffix in enumerate(("", "/tokens")):
                spent = [int(row[at]) for row in rows]
                for keys, own in zip(self._shards.all, spent, strict=True):
                    key = f"{keys.spent(f':{tenant}')}/{period}{suffix}/elsewhere"
                    yield "SET", key, sum(spent) - own, "PXAT", int(ends_ms)
