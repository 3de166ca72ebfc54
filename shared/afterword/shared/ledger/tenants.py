"""How tenants share the response workers: who waits, runs, is capped, and had how much lately."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from afterword.shared.ledger import steps
from afterword.shared.ledger.records import reading
from afterword.shared.ledger.shard import Shards
from afterword.shared.lifecycle import JobState
from afterword.shared.names import Keys

#: Most tenants that one script looks at.
_TENANTS = 50

#: Attempts that began are counted in slots of ten minutes; the last hour is this one and five.
_SLOT_S, _SLOTS = 600, 6

_QUEUED, _RUNNING = f"job:{JobState.QUEUED}:", f"job:{JobState.RUNNING}:"


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """What one tenant has of the response workers, and what it waits for."""

    tenant: str
    """The tenant."""

    waiting: int
    """How many of its jobs are queued, those included that wait for a later time."""

    oldest_wait_s: float
    """Seconds since the job was submitted that waits longest for a worker or below the cap; 0 if
    none does."""

    running: int
    """How many of its jobs run now."""

    most_running: int | None
    """Most that may run at once in all shards together; None without a cap."""

    at_cap: bool
    """Whether jobs wait because it runs all it may."""

    weight: int
    """Its share beside others whose jobs wait; 1 unless an operator ordered another."""

    begun: int
    """How many attempts at its jobs began in the last hour, to ten minutes."""

    share: float
    """Which part of all attempts of that hour these are, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class TenantLoads:
    """Some tenants, those with most waiting jobs first, and counts of all."""

    tenants: Sequence[TenantLoad]
    """Those that were asked for."""

    count: int
    """How many have waiting or running jobs, or had some in the last hour."""

    waiting: int
    """How many of these have waiting jobs."""

    at_cap: int
    """How many of these run all they may while more of their jobs wait."""

    longest_wait_s: float
    """The longest `oldest_wait_s` of all."""

    most_waiting: int
    """The most waiting jobs that one of them has."""

    largest_share: float
    """The largest `share` of all."""

    more: bool
    """Whether there are tenants behind these."""


@dataclass(slots=True)
class _Found:
    """What the shards say of one tenant, added up."""

    waiting: int = 0
    running: int = 0
    begun: int = 0
    oldest_wait_s: float = 0.0
    weight: int = 1
    most_running: int | None = None
    at_cap: bool = False

    def add(self, now: int, oldest: str, weight: int | str, most: int | str, at_cap: int) -> None:
        """Add what a script says of one shard: no value where it says ''."""
        if oldest:
            self.oldest_wait_s = max(self.oldest_wait_s, (now - int(oldest)) / 1000)
        self.weight = int(weight or self.weight)
        self.most_running = int(most) if most != "" else self.most_running
        self.at_cap |= bool(at_cap)


class OpenRequests(NamedTuple):
    """What of a tenant is open in one shard, which is what its caps count."""

    jobs: int
    bytes: int


class Tenants:
    """Reads how tenants share the workers, a part at a time; figures are of nearly one moment."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def loads(
        self, *, counts: Sequence[Mapping[str, int]] | None = None
    ) -> Sequence[TenantLoad]:
        """Return every tenant that has jobs or had some in the last hour, most waiting first.

        `counts` are those of each shard, if they were read.
        """
        shards = self._shards.all
        if counts is None:
            counts = await asyncio.gather(*map(self._shards.counts, shards))
        slot = int((await self._shards.send_command("TIME"))[0]) // _SLOT_S
        found: dict[str, _Found] = {}
        read = zip(shards, counts, strict=True)
        await asyncio.gather(*(self._look(keys, slot, known, found) for keys, known in read))
        begun = sum(one.begun for one in found.values())
        loads = [self._load(tenant, one, begun) for tenant, one in found.items()]
        return sorted(loads, key=lambda one: (-one.waiting, -one.running, -one.begun, one.tenant))

    async def opened(self, tenants: Sequence[str]) -> dict[str, list[OpenRequests]]:
        """Return what of each tenant is open, a row for each shard."""
        found: dict[str, list[OpenRequests]] = {tenant: [] for tenant in tenants}
        for keys in self._shards.all:
            for start in range(0, len(tenants), _TENANTS):
                some = tenants[start : start + _TENANTS]
                for tenant, opened in zip(some, await self._opened(keys, some), strict=True):
                    found[tenant].append(opened)
        return found

    async def _opened(self, keys: Keys, tenants: Sequence[str]) -> list[OpenRequests]:
        owners = (f":{tenant}" for tenant in tenants)
        texts = await self._shards.send_command("HMGET", keys.open_counts, *owners)
        with reading("open requests"):
            counts = [(text or "0 0 0").split() for text in texts]
            return [OpenRequests(int(jobs), int(size)) for jobs, size, _high in counts]

    async def _look(
        self, keys: Keys, slot: int, counts: Mapping[str, int], found: dict[str, _Found]
    ) -> None:
        """Add what one shard knows of each tenant."""
        for name, count in counts.items():
            if count > 0 and name.startswith(_QUEUED):
                found.setdefault(name.removeprefix(_QUEUED), _Found()).waiting += count
            elif count > 0 and name.startswith(_RUNNING):
                found.setdefault(name.removeprefix(_RUNNING), _Found()).running += count
        for tenant, count in (await self._begun(keys, slot)).items():
            found.setdefault(tenant, _Found()).begun += count
        names = list(found)
        for start in range(0, len(names), _TENANTS):
            arguments = steps.ReadTenants(tenants=names[start : start + _TENANTS])
            now, rows = await self._shards.run_script(keys, arguments)
            with reading("tenant"):
                for tenant, *said in rows:
                    found[tenant].add(int(now), *said)

    async def _begun(self, keys: Keys, slot: int) -> Counter[str]:
        """Return how many attempts of each tenant began in the last hour."""
        begun: Counter[str] = Counter()
        for number in range(slot - _SLOTS + 1, slot + 1):
            begun.update(await self._shards.counts_in(keys.begun(number)))
        return begun

    def _load(self, tenant: str, one: _Found, begun: int) -> TenantLoad:
        settings = self._shards.settings
        cap = settings.max_running_per_tenant if one.most_running is None else one.most_running
        return TenantLoad(
            tenant=tenant,
            waiting=one.waiting,
            oldest_wait_s=round(max(one.oldest_wait_s, 0.0), 1),
            running=one.running,
            most_running=max(cap, settings.shards) if cap else None,
            at_cap=one.at_cap,
            weight=one.weight,
            begun=one.begun,
            share=round(one.begun / begun, 4) if begun else 0.0,
        )


def whole(loads: Sequence[TenantLoad]) -> TenantLoads:
    """Return all tenants with their counts."""
    return TenantLoads(
        tenants=loads,
        count=len(loads),
        waiting=sum(one.waiting > 0 for one in loads),
        at_cap=sum(one.at_cap for one in loads),
        longest_wait_s=max((one.oldest_wait_s for one in loads), default=0.0),
        most_waiting=max((one.waiting for one in loads), default=0),
        largest_share=max((one.share for one in loads), default=0.0),
        more=False,
    )
