"""Turns of shards: none waits until all hints are taken that were sent before its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeAlias

from afterword.shared.errors import AfterwordError
from afterword.shared.names import shard_in

#: Hints the job of a shard that is next, in one agenda; returns whether there was one to hint.
HintNext: TypeAlias = Callable[[int, str], Awaitable[bool]]

#: While jobs wait for less than this, in seconds, no shard is far behind another.
BACKLOG_S = 1.0

#: A shard where nothing waits is looked at less and less, down to this part of the first pace.
MOST_PACE = 8


class ShardTurns:
    """Counts the hints of each shard that this process takes, and looks at those passed over.

    Tenants take turns within a shard, and hints of all shards are taken in the order in which they
    were sent. So a shard of which none came for as many hints as there are shards has its next job
    hinted ahead of all.
    """

    def __init__(self, shards: int, hint_next: HintNext) -> None:
        self._hint_next = hint_next
        self._shards = shards
        self._passed = [0] * shards
        self._paces = [shards] * shards

    async def took(self, job_id: str, agenda: str, waited_s: float) -> None:
        """Note that a job was claimed that had waited for so many seconds."""
        if self._shards == 1 or waited_s < BACKLOG_S:
            return
        self._passed = [passed + 1 for passed in self._passed]
        mine = shard_in(job_id)
        self._passed[mine], self._paces[mine] = 0, self._shards
        due = max(range(self._shards), key=lambda shard: self._passed[shard] - self._paces[shard])
        if self._passed[due] >= self._paces[due]:
            self._passed[due] = 0
            await self._look(due, agenda)

    async def _look(self, shard: int, agenda: str) -> None:
        hinted = False
        with suppress(AfterwordError):  # the job that was claimed goes on
            hinted = await self._hint_next(shard, agenda)
        slower = min(2 * self._paces[shard], MOST_PACE * self._shards)
        self._paces[shard] = self._shards if hinted else slower
