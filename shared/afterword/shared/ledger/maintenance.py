"""What keeps the ledger going: the sweep and the overview."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger.records import (
    AgendaCount,
    Inconsistency,
    Overview,
    SweepCounts,
    WorkerSeen,
    moment,
)
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys

#: Records of each sort that one sweep of one shard touches at most: keeps a script short.
SWEEP_LIMIT = 100


class Maintenance:
    """Sweep and count every shard."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards to look after."""
        self._shards = shards

    async def sweep(self, seen: str = "") -> SweepCounts:
        """Do what time has made due, everywhere; `seen` is the '<queue> <worker>' that sweeps."""
        found = await asyncio.gather(*(self._sweep(keys, seen) for keys in self._shards.all))
        return SweepCounts(*(sum(column) for column in zip(*map(astuple, found), strict=True)))

    async def _sweep(self, keys: Keys, seen: str) -> SweepCounts:
        settings = self._shards.settings
        counts = await self._shards.run(
            "maintenance/sweep",
            keys,
            SWEEP_LIMIT,
            milliseconds(settings.hint_grace_s),
            milliseconds(settings.retention_s),
            milliseconds(settings.stream_retention_s),
            seen,
            RECORD_VERSION,
        )
        return SweepCounts(*counts)

    async def overview(self) -> Sequence[Overview]:
        """Count what is open, late and dead, a row per shard."""
        return [
            _overview(await self._shards.run("maintenance/overview", keys))
            for keys in self._shards.all
        ]

    async def find_inconsistencies(self, *, mend: bool = False) -> AsyncIterator[Inconsistency]:
        """Look at every record, a hundred in one moment; with `mend`, put back what is missing.

        What is found is a bug, ours or of whoever wrote to the Redis: scripts leave no gap.
        """
        for keys in self._shards.all:
            async for gap in self._in(keys, mend=mend):
                yield gap

    async def claim_reconciliation(self, every_ms: int) -> bool:
        """Return true to one caller in so many milliseconds: one look is enough for a fleet."""
        key = f"{self._shards.all[0].root}:reconciled"
        return bool(await self._shards.call("SET", key, 1, "NX", "PX", every_ms))

    async def _in(self, keys: Keys, *, mend: bool) -> AsyncIterator[Inconsistency]:
        prefix = keys.job("")
        async for page in self._shards.scan(f"{prefix}*"):
            ids = [key.removeprefix(prefix) for key in page]
            (found,) = await self._shards.run(
                "maintenance/inconsistencies", keys, int(mend), RECORD_VERSION, *ids
            )
            for job_id, what in zip(found[::2], found[1::2], strict=True):
                yield Inconsistency(job_id, what)

    async def sequences(self) -> Mapping[Keys, int]:
        """Return the newest number of each shard; it never falls while Redis keeps what it has."""
        shards = self._shards.all
        found = await asyncio.gather(*(self._shards.call("GET", keys.sequence) for keys in shards))
        return {keys: int(number or 0) for keys, number in zip(shards, found, strict=True)}

    async def skip_sequence(self, keys: Keys, count: int) -> int:
        """Leave out so many numbers, or more, and return the newest: nobody will be given them."""
        return int(await self._shards.call("INCRBY", keys.sequence, count))


def _overview(answer: Sequence[Any]) -> Overview:
    now, open_jobs, dead, workers, counts, newest, *agendas = answer
    return Overview(
        at=moment(now),
        open_jobs=open_jobs,
        dead_letters=dead,
        workers=tuple(_worker(*pair) for pair in zip(workers[::2], workers[1::2], strict=True)),
        counts={name: int(value) for name, value in zip(counts[::2], counts[1::2], strict=True)},
        agendas=tuple(_agenda(row) for row in agendas),
        newest_version=int(newest),
    )


def _worker(name: str, seen: str) -> WorkerSeen:
    queue, _, worker = name.partition(" ")
    return WorkerSeen(worker, queue, moment(float(seen)))


def _agenda(row: Sequence[Any]) -> AgendaCount:
    name, hinted, waiting, leased, oldest, messages, held = row
    since = moment(float(oldest)) if oldest else None
    return AgendaCount(name, hinted, waiting, leased, since, messages, held)
