"""Moves parts of a tenant's cap on running jobs between shards, to where its jobs wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from afterword.shared.ledger import steps
from afterword.shared.ledger.records import reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.names import Keys

#: Lanes and tenants at their cap that are read at once.
_AT_ONCE = 1000

#: Most tenants that no longer are, and have parts still, that one balance of all looks at.
_PARTED = 10

#: Instead of a new part: only say what there is; and forget a part that is equal by now.
_AS_IT_IS, _FORGET = -1, -2


class PartSeen(NamedTuple):
    """What one shard says of one tenant."""

    cap: int
    """Most running jobs of all shards."""

    part: int
    """Most running jobs of this shard."""

    running: int
    """Jobs that run in it."""

    waiting: int
    """Jobs that wait in it, for a worker or below the cap."""

    @property
    def taken(self) -> int:
        """Return what of the cap this shard has, or still uses."""
        return max(self.part, self.running)


class CapParts:
    """Balances the parts of caps. With one shard there is nothing to do.

    What is taken of a cap never exceeds it, whoever balances at the same time and wherever one
    stops: a part is lowered first, in one step that says how many jobs run; only what became free
    is given to another shard, and only if no later balance has begun there.
    """

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def balance_all(self) -> None:
        """Balance every tenant at its cap, and some that were: they get equal parts again."""
        for tenant in sorted({*await self._parted(), *await self._at_cap()}):
            await self.balance(tenant)

    async def balance(self, tenant: str) -> None:
        """Give each shard the part of a tenant's cap that its jobs can use."""
        turn = int(await self._shards.send_command("INCR", self._shards.all[0].sequence))
        every = self._shards.all
        seen = await asyncio.gather(*(self._set(keys, tenant, turn, _AS_IT_IS) for keys in every))
        found = [one for one in seen if one is not None]
        if len(found) < len(every) or len({one.cap for one in found}) > 1:
            return  # another balance has begun, there is no cap, or it is being changed
        wanted = parts_of(found[0].cap, [one.running + one.waiting for one in found])
        for at, keys in enumerate(every):
            if wanted[at] < found[at].part:
                lowered = await self._set(keys, tenant, turn, wanted[at])
                if lowered is None:
                    return
                found[at] = lowered
        free = found[0].cap - sum(one.taken for one in found)
        for at, keys in enumerate(every):
            more = min(wanted[at] - found[at].part, free)
            if more > 0:
                await self._set(keys, tenant, turn, found[at].part + more)
                free -= more
        if not any(one.running + one.waiting for one in found):
            await asyncio.gather(*(self._set(keys, tenant, turn, _FORGET) for keys in every))

    async def _at_cap(self) -> set[str]:
        """Return the tenants that run all they may in some shard."""
        found = await asyncio.gather(*map(self._at_cap_in, self._shards.all))
        return {owner[1:] for some in found for owner in some if owner.startswith(":")}

    async def _at_cap_in(self, keys: Keys) -> list[str]:
        owners = list[str]()
        while True:
            last = len(owners) + _AT_ONCE - 1
            more = await self._shards.send_command("ZRANGE", keys.at_cap, len(owners), last)
            owners += more
            if len(more) < _AT_ONCE:
                return owners

    async def _parted(self) -> Sequence[str]:
        """Return some tenants that have parts, others each time."""
        key = self._shards.all[0].cap_parts
        found: Sequence[str] = await self._shards.send_command("HRANDFIELD", key, _PARTED)
        return found

    async def _set(self, keys: Keys, tenant: str, turn: int, part: int) -> PartSeen | None:
        """Set the part of a shard; return what there is then, None if it was refused."""
        settings = self._shards.settings
        arguments = steps.BalanceCap(
            tenant=tenant,
            most=settings.max_running_per_tenant,
            shards=settings.shards,
            turn=turn,
            part=part,
        )
        status, *said = await self._shards.run_script(keys, arguments)
        with reading("part of a cap"):
            return _seen(said) if status == "set" else None


def parts_of(cap: int, wanted: Sequence[int]) -> list[int]:
    """Divide a cap: each shard gets at least 1, then what it wants, then evenly of what is left."""
    parts = [1] * len(wanted)
    left = cap - len(wanted)
    for place, shard in enumerate(sorted(range(len(wanted)), key=lambda one: wanted[one])):
        more = max(0, min(left // (len(wanted) - place), wanted[shard] - 1))
        parts[shard] += more
        left -= more
    each, more = divmod(max(0, left), len(wanted))
    return [part + each + (shard < more) for shard, part in enumerate(parts)]


def _seen(said: Sequence[Any]) -> PartSeen:
    cap, part, running, waiting = map(int, said)
    return PartSeen(cap, part, running, waiting)
