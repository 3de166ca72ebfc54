"""What keeps the ledger going: the sweep and the overview."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.ledger.records import (
    AgendaCount,
    Overview,
    Swept,
    WorkerSeen,
    moment,
)
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys

#: Records of each sort that one sweep of one shard touches at most: keeps a script short.
SWEEP_LIMIT = 100


class Upkeep:
    """Sweep and count every shard."""

    def __init__(self, shards: Shards) -> None:
        """Take the shards to look after."""
        self._shards = shards

    async def sweep(self, seen: str = "") -> Swept:
        """Do what time has made due, everywhere; `seen` is the '<queue> <worker>' that sweeps."""
        found = await asyncio.gather(*(self._sweep(keys, seen) for keys in self._shards.all))
        return Swept(*(sum(column) for column in zip(*map(astuple, found), strict=True)))

    async def _sweep(self, keys: Keys, seen: str) -> Swept:
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
        return Swept(*counts)

    async def overview(self) -> Sequence[Overview]:
        """Count what is open, late and dead, a row per shard."""
        return [
            _overview(await self._shards.run("maintenance/overview", keys))
            for keys in self._shards.all
        ]


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
